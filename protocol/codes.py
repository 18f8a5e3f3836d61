"""The closed lists of HX/1 as plain data; never says what a code entails.

A list grows only with the schema version of the record type that uses it (PROTOCOL section 3): a receiver that does
not know a code could neither route nor count it.
"""

from enum import StrEnum
from typing import Final


class RecordType(StrEnum):
    """The record types whose bodies this version reads; a record of another type is kept unread."""

    REPORT = "report"
    OUTCOME = "outcome"
    ASSESSMENT = "assessment"
    ACTION = "action"
    TRANSFER = "transfer"
    CORRECTION = "correction"
    WITHDRAWAL = "withdrawal"
    STATUS = "status"


class Channel(StrEnum):
    """How a report reached the hotline that sent it."""

    PUBLIC = "public"
    NETWORK = "network"
    OWN = "own"
    PROFESSIONAL = "professional"


class Kind(StrEnum):
    """What a content item's URL points at."""

    PAGE = "page"
    MEDIA = "media"


class HashAlgorithm(StrEnum):
    """What made a hash of a media file; written in lower-case hexadecimal."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    PDQ = "pdq"


HASH_HEX_DIGITS: Final = {
    HashAlgorithm.MD5: 32,
    HashAlgorithm.SHA1: 40,
    HashAlgorithm.SHA256: 64,
    # 256 bits as hex.
    HashAlgorithm.PDQ: 64,
}


class Classification(StrEnum):
    """The outcome of a qualification: illegal everywhere, illegal under national law, or not illegal."""

    BASELINE = "baseline"
    NATIONAL = "national"
    NOT_ILLEGAL = "not-illegal"


class Age(StrEnum):
    """The apparent age group of the victims."""

    INFANT = "infant"
    PREPUBESCENT = "prepubescent"
    PUBESCENT = "pubescent"
    NOT_CATEGORISED = "not-categorised"


class Gender(StrEnum):
    """The apparent gender of the victims."""

    FEMALE = "female"
    MALE = "male"
    BOTH = "both"
    NOT_DETERMINED = "not-determined"


class Commerciality(StrEnum):
    """Whether the site takes money for the content."""

    COMMERCIAL = "commercial"
    NON_COMMERCIAL = "non-commercial"
    NOT_DETERMINED = "not-determined"


class SiteType(StrEnum):
    """The kind of service the page is on."""

    WEBSITE = "website"
    FILE_HOST = "file-host"
    IMAGE_STORE = "image-store"
    IMAGE_BOARD = "image-board"
    FORUM = "forum"
    BANNER_SITE = "banner-site"
    LINK_SITE = "link-site"
    SOCIAL_NETWORKING = "social-networking"
    REDIRECTOR = "redirector"
    WEB_ARCHIVE = "web-archive"
    SEARCH_PROVIDER = "search-provider"
    IMAGE_HOST = "image-host"
    BLOG = "blog"
    NOT_APPLICABLE = "not-applicable"


class PaymentMethod(StrEnum):
    """How a commercial site is paid; a report may name several."""

    AMEX = "amex"
    DINERS = "diners"
    MASTERCARD = "mastercard"
    PAYPAL = "paypal"
    VISA = "visa"
    WESTERN_UNION = "western-union"
    OTHER = "other"
    NONE = "none"
    SMS = "sms"
    EMAIL = "email"
    LIBERTY_RESERVE = "liberty-reserve"
    BITCOIN = "bitcoin"
    NOT_DETERMINED = "not-determined"


class Action(StrEnum):
    """What the hotline that has custody did about an item, or found it to be."""

    AUTHORITIES_INFORMED = "authorities-informed"
    HOSTER_NOTIFIED = "hoster-notified"
    REMOVED = "removed"
    UNAVAILABLE = "unavailable"
    NOT_ILLEGAL = "not-illegal"


REASONED_ACTIONS: Final = frozenset({Action.UNAVAILABLE, Action.NOT_ILLEGAL})
"""The actions that may say why."""
FINAL_ACTIONS: Final = frozenset({Action.REMOVED, Action.UNAVAILABLE, Action.NOT_ILLEGAL})
"""The actions that close an item."""


class ActionReason(StrEnum):
    """Why an item is unavailable or not illegal."""

    OTHER = "other"
    CONTENT_NOT_FOUND = "content-not-found"
    REFERRER_NOT_KNOWN = "referrer-not-known"
    UNABLE_TO_ACCESS = "unable-to-access"
    PASSWORD_PROTECTED = "password-protected"  # noqa: S105 - a reason, no password
    ACCOUNT_DISABLED = "account-disabled"
    LEGALLY_UNABLE = "legally-unable-to-access"
    LINK_EXPIRED = "link-expired"
    SITE_DOWN = "not-found-or-site-down"
    TEMPORARILY_UNAVAILABLE = "temporarily-unavailable"
    PREMIUM_ACCOUNT = "premium-account-necessary"
    MISSING_PARTS = "missing-parts"
    REMOVED_BEFORE_ASSESSMENT = "removed-before-assessment"
    ADULT = "adult"
    NOT_SEXUALISED = "not-sexualised"
    BELOW_THRESHOLD = "below-threshold"
    IMAGES_TOO_SMALL = "images-too-small"
    VIRTUAL = "virtual"
    LINKS_NOT_ILLEGAL = "links-not-illegal"
    AGE_UNCLEAR = "age-unclear"
    AGE_OVER_THRESHOLD = "age-over-threshold"


class TransferReason(StrEnum):
    """Why an item changes hands."""

    MOVED = "moved"
    WRONG_LOCATION = "wrong-location"
    HOTLINE_JOINED = "hotline-joined"
    FALLBACK = "fallback"
    RULING = "ruling"


class WithdrawalReason(StrEnum):
    """Why a report is taken back."""

    REPORTED_IN_ERROR = "reported-in-error"
    NOT_ILLEGAL = "not-illegal"
    LEGAL_ORDER = "legal-order"
    REROUTED = "rerouted"
    """It was not receipted in time and has gone to another hotline."""
    OTHER = "other"


class StatusKind(StrEnum):
    """What a `status` record tells: of an item's way, or of a stream."""

    DELIVERED = "delivered"
    """Another hotline has the item in custody; `proof` is that of the record that gave it."""
    FINAL = "final"
    """The item is closed, and how."""
    RELAY_FAILURE = "relay-failure"
    """A record was not receipted by `node` before its time."""
    DISPUTED = "disputed"
    """The item is at the desk; `code` says why, or OVER that it is there no longer."""
    EPOCH = "epoch"
    """The first record of an epoch: the last checkpoint of the one before."""


#: The code of a status of kind `disputed` that says that the item is not at the desk any more.
OVER: Final = "over"


class Purpose(StrEnum):
    """What the receiver may do with a record; what it does with another purpose is its own rule."""

    TAKEDOWN = "takedown"
    LAW_ENFORCEMENT = "law-enforcement"
    STATISTICS = "statistics"


class NodeState(StrEnum):
    """Where a member stands in the directory."""

    ACTIVE = "active"
    MAINTENANCE = "maintenance"
    SUSPENDED = "suspended"
    LEFT = "left"


class Delivery(StrEnum):
    """How what is said to a member reaches it: it is called, or it calls (behind a firewall) and fetches."""

    PUSH = "push"
    PULL = "pull"


# ISO 3166-1 alpha-2, the officially assigned codes; neither reserved nor user-assigned ones.
_ASSIGNED: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY "
    "BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK "
    "FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR "
    "IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK "
    "ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM "
    "PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF "
    "TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES: Final = frozenset(_ASSIGNED.split())
