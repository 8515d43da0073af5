"""Shapes of what the API takes and gives about searches."""

from __future__ import annotations

from flask_smorest.fields import Upload
from marshmallow import Schema, fields, validate

from webui.fields import ImageLink, Moment, asked, described, number, unix_time
from webui.schemas import ProblemSchema, WaitQuery
from workers.options import COLLAPSE_DISTANCE, DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT
from workers.records import SearchState

MAX_OFFSET = 1_000_000
_K = f"Most hits, {DEFAULT_K} unless it is given; the status tells the largest as `max_k`."
_EFFORT = (
    f"Time against recall: {MIN_EFFORT} (quick) to {MAX_EFFORT} (compares every image), "
    f"{DEFAULT_EFFORT} unless it is given."
)


class SearchQuery(WaitQuery):
    """How long an answer may take, and which of its hits are wanted."""

    offset = fields.Integer(
        load_default=0,
        validate=validate.Range(0, MAX_OFFSET),
        metadata=described("Leave out so many of the nearest hits."),
    )
    limit = fields.Integer(
        validate=validate.Range(1, MAX_OFFSET),
        metadata=described("Most hits to return; all that follow when it is left out."),
    )


class _Wanted(Schema):
    """What may be asked of a search besides its image and the numbers that a form has as text."""

    max_distance = fields.Float(
        allow_none=True, metadata=described("Only hits that are at most this far.")
    )
    labels = fields.List(
        fields.String(), metadata=described("Only images with at least one of these labels.")
    )
    source = fields.String(metadata=described("Only images with a source that starts with this."))
    since = Moment("Only images that were added then or later.")
    until = Moment("Only images that were added before then.")
    collapse = fields.Float(
        allow_none=True,
        metadata=described(
            "Fold hits whose features are no farther apart than this into the nearest of them; "
            f"{COLLAPSE_DISTANCE} suits copies of a photo with the default bundles."
        ),
    )


class SearchJsonSchema(_Wanted):
    """A search by address or by a stored image; give one of the two."""

    url = fields.String(
        validate=validate.Length(max=4096),
        metadata=described("Address of the image to search with."),
    )
    image_id = fields.String(metadata=described("A stored image to search with."))
    k = fields.Integer(strict=True, metadata=described(_K))
    effort = fields.Integer(strict=True, metadata=described(_EFFORT))


class SearchFormSchema(_Wanted):
    """A search by an uploaded image."""

    file = Upload(required=True, metadata=described("The image to search with."))
    k = fields.Integer(metadata=described(_K))
    effort = fields.Integer(metadata=described(_EFFORT))


class QuerySchema(Schema):
    """What was searched with."""

    kind = fields.String(metadata=described("upload, url or image."))
    label = fields.String(metadata=described("File name, address or image id, for people."))
    image_id = fields.String(
        allow_none=True, dump_default=None, metadata=described("The stored image, when it is one.")
    )


class FoundImageSchema(Schema):
    """One hit."""

    rank = number("1 is the nearest.")
    id = fields.String(metadata=described("From the content of the file."))
    distance = fields.Float(
        metadata=described(
            "Of the features, plus the bundle's code weight for differing bits; nearly 0 is the "
            "same, since stored features are rounded."
        )
    )
    hamming = number("Bits in which the codes differ.")
    sources = fields.List(fields.String(), metadata=described("Where it came from."))
    width_px = number("Width in pixels.")
    height_px = number("Height in pixels.")
    format = fields.String(metadata=described("File format, such as JPEG."))
    labels = fields.List(fields.String(), metadata=described("What it is labelled with."))
    added_at = unix_time("When it was added.")
    duplicates = fields.List(
        fields.String(),
        metadata=described("Ids of the near-duplicates that were folded into it, nearest first."),
    )
    thumbnail_url = ImageLink("images.thumbnail", "Path of a small JPEG.")
    original_url = ImageLink("images.original", "Path of the file itself.")


class ReportSchema(Schema):
    """How an answer came about."""

    bundle = fields.String(metadata=described("Model bundle that it was found with."))
    effort = number("Effort asked for.")
    shards_asked = number("Parts of the collection.")
    shards_answered = number("Parts that answered in time; fewer make the search `partial`.")
    groups_asked = number("Probes sent: groups of neighbouring buckets, over all shards.")
    groups_answered = number("Probes that answered in time.")
    problem = fields.Nested(
        ProblemSchema, allow_none=True, metadata=described("Why others did not, if so.")
    )
    buckets = number("Buckets looked into.")
    radius = number(
        "Every image whose code differs in at most so many bits was considered; -1 is no promise."
    )
    complete = fields.Boolean(
        metadata=described("Whether every image was considered that the filter lets pass.")
    )
    candidates = number("Images whose code was compared; with a filter, those that pass it.")
    reranked = number("Images whose feature was compared.")
    folded = fields.Integer(
        dump_default=0, metadata=described("Near-duplicates that were folded into the hits.")
    )
    timings_ms = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        metadata=described(
            "Milliseconds of each stage. `total` is the whole; `probe_*` are sums over the "
            "probes, which run side by side inside of `fan_out`."
        ),
    )


class SearchSchema(Schema):
    """A search, at any point of its life."""

    ticket = fields.String(metadata=described("Names the search; keep it secret or share it."))
    state = fields.Enum(SearchState, by_value=fields.String)
    query = fields.Nested(QuerySchema)
    k = asked(fields.Integer, "k", "Most hits asked for.")
    effort = asked(fields.Integer, "effort", "Effort asked for.")
    max_distance = asked(fields.Float, "max_distance", "Largest distance asked for.")
    labels = fields.List(
        fields.String(), attribute="options.labels", metadata=described("Labels asked for.")
    )
    source = asked(fields.String, "source", "Start of the source that was asked for.")
    since = asked(fields.Float, "since", "Images added since then were asked for, Unix time.")
    until = asked(fields.Float, "until", "Images added before were asked for, Unix time.")
    collapse = asked(fields.Float, "collapse", "Distance of near-duplicates that are folded.")
    created_at = unix_time("When it was asked.")
    started_at = unix_time("When a worker took it up.")
    finished_at = unix_time("When the answer was ready.")
    expires_at = unix_time("Until when the result is kept.")
    position = fields.Integer(
        allow_none=True, metadata=described("Searches ahead of it while it is queued.")
    )
    hits = fields.List(
        fields.Nested(FoundImageSchema),
        metadata=described("Nearest first; all of them, or those that were asked for."),
    )
    total = number("Hits in the whole answer.")
    offset = number("Hits left out before the first of `hits`.")
    report = fields.Nested(ReportSchema, allow_none=True)
    error = fields.Nested(ProblemSchema, allow_none=True)
