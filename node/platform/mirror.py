"""The mirror of the membership directory: what this node trusts, for whoever asks. Its files vouch for themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from node.platform.apiproblems import NOT_FOUND, ApiProblem
from node.platform.routes import Answer, Auth, Call, Parameter, Route
from node.platform.sources import MIRROR_PATH


@dataclass(frozen=True, slots=True)
class MirrorApi:
    """What the door works with; the same for a node and for the coordinator."""

    file: Callable[[str], bytes | None]

    def routes(self) -> list[Route]:
        """Return the operation."""
        return [
            Route(
                method="GET",
                path=MIRROR_PATH + "/{file}",
                summary="A file of the directory's metadata",
                group="Directory",
                handler=self._file,
                auth=Auth.OPEN,
                parameters=(Parameter("file", str, "The file's name.", example="timestamp.json"),),
                responses={HTTPStatus.OK: Answer("The file as it was signed.", None, media_type="application/json")},
                problems=(NOT_FOUND,),
            )
        ]

    async def _file(self, call: Call) -> web.StreamResponse:
        content = self.file(call.parameters["file"])
        if content is None:
            raise ApiProblem(NOT_FOUND, "there is no such file of the directory here")
        return web.Response(body=content, content_type="application/json")
