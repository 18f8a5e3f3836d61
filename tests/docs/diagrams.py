"""The diagrams of the documents, drawn from the tables of the lifecycle."""

from collections.abc import Mapping

from node.hotline.domain.lifecycle import ENTRIES, RECORDS, TABLE, Said, Speaker, State


def mermaid() -> str:
    """Draw both tables as a Mermaid state diagram, one line a pair of states, for docs/architecture.md."""
    moves = {(state, event.value): after for (state, event), after in TABLE.items()}
    entries = [f"    [*] --> {_node(state)}: {entry}" for entry, state in ENTRIES.items()]
    return "\n".join(["stateDiagram-v2", *entries, *_drawn({**moves, **_record_moves()})]) + "\n"


def records_mermaid() -> str:
    """Draw what records change, for docs/protocol.md."""
    return "\n".join(["stateDiagram-v2", *_drawn(_record_moves())]) + "\n"


def is_anybodys(said: Said) -> bool:
    """Tell whether a record does the same whoever says it."""
    return all(len({RECORDS[state, said, speaker] for speaker in Speaker}) == 1 for state in State)


def voices(said: Said) -> dict[str, Speaker]:
    """Return who the table tells apart for a record, by name; an origin is both, where both are heard alike."""
    if is_anybodys(said):
        return {"anybody": Speaker.CUSTODIAN}
    alike = all(RECORDS[state, said, Speaker.REPORTER] is RECORDS[state, said, Speaker.GIVER] for state in State)
    origins = {"origin": Speaker.REPORTER} if alike else {one.value: one for one in (Speaker.REPORTER, Speaker.GIVER)}
    custodian, former = Speaker.CUSTODIAN, Speaker.FORMER
    return {custodian.value: custodian, **origins, former.value: former}


def _record_moves() -> dict[tuple[State, str], State]:
    return {
        (state, said.value if who == "anybody" else f"{said} by {who}"): after
        for state in State
        for said in Said
        for who, speaker in voices(said).items()
        if isinstance(after := RECORDS[state, said, speaker], State)
    }


def _drawn(moves: Mapping[tuple[State, str], State]) -> list[str]:
    labels: dict[tuple[State, State], list[str]] = {}
    for (state, label), after in moves.items():
        if state is not after:
            labels.setdefault((state, after), []).append(label)
    return [f"    {_node(state)} --> {_node(after)}: {', '.join(labels[state, after])}" for state, after in labels]


def _node(state: State) -> str:
    """Return a name without hyphens, which Mermaid's arrows are made of."""
    return state.replace("-", "_")
