"""Shapes of what the API takes and gives; the OpenAPI document is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import url_for
from flask_smorest.fields import Upload
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from workers.records import ItemState, JobKind, JobState, SearchState

MAX_WAIT_S = 30
MAX_PAGE = 500
MAX_OFFSET = 1_000_000
_LABELS = "Words that its images are labelled with, for filters of searches."
NEEDED_BY_KIND = {JobKind.FOLDER: "path", JobKind.URLS: "urls", JobKind.CRAWL: "seed"}


def described(text: str) -> dict[str, str]:
    """Return field metadata that shows ``text`` in the OpenAPI document."""
    return {"description": text}


def _time(text: str) -> fields.Float:
    return fields.Float(metadata=described(f"{text} Unix time in seconds."), allow_none=True)


def _count(text: str) -> fields.Integer:
    return fields.Integer(metadata=described(text))


class _ImageLink(fields.String):
    """Path of one of an image's files; written from its ``id``."""

    def __init__(self, endpoint: str, text: str) -> None:
        super().__init__(attribute="id", dump_only=True, metadata=described(text))
        self._endpoint = endpoint

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str:
        return url_for(self._endpoint, image_id=value)


class WaitQuery(Schema):
    """How long an answer may take."""

    wait = fields.Float(
        load_default=0,
        validate=validate.Range(0, MAX_WAIT_S),
        metadata=described("Answer when it is finished, or after this many seconds."),
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


class ProblemSchema(Schema):
    """Why something went wrong."""

    code = fields.String(metadata=described("Stable word for programs."))
    message = fields.String(metadata=described("A sentence for people."))
    remedy = fields.String(metadata=described("What to do; may be empty."))


class SearchJsonSchema(Schema):
    """A search by address or by a stored image; give one of the two."""

    url = fields.String(
        validate=validate.Length(max=4096),
        metadata=described("Address of the image to search with."),
    )
    image_id = fields.String(metadata=described("A stored image to search with."))
    k = fields.Integer(strict=True, metadata=described("Most hits to return."))
    effort = fields.Integer(strict=True, metadata=described("1 (quick) to 10 (every image)."))


class SearchFormSchema(Schema):
    """A search by an uploaded image."""

    file = Upload(required=True, metadata=described("The image to search with."))
    k = fields.Integer(metadata=described("Most hits to return."))
    effort = fields.Integer(metadata=described("1 (quick) to 10 (every image)."))


class QuerySchema(Schema):
    """What was searched with."""

    kind = fields.String(metadata=described("upload, url or image."))
    label = fields.String(metadata=described("File name, address or image id, for people."))
    image_id = fields.String(
        allow_none=True, dump_default=None, metadata=described("The stored image, when it is one.")
    )


class FoundImageSchema(Schema):
    """One hit."""

    rank = _count("1 is the nearest.")
    id = fields.String(metadata=described("From the content of the file."))
    distance = fields.Float(
        metadata=described(
            "Of the features, plus the bundle's code weight for differing bits; nearly 0 is the "
            "same, since stored features are rounded."
        )
    )
    hamming = _count("Bits in which the codes differ.")
    sources = fields.List(fields.String(), metadata=described("Where it came from."))
    width_px = _count("Width in pixels.")
    height_px = _count("Height in pixels.")
    format = fields.String(metadata=described("File format, such as JPEG."))
    thumbnail_url = _ImageLink("images.thumbnail", "Path of a small JPEG.")
    original_url = _ImageLink("images.original", "Path of the file itself.")


class ReportSchema(Schema):
    """How an answer came about."""

    bundle = fields.String(metadata=described("Model bundle that it was found with."))
    effort = _count("Effort asked for.")
    shards_asked = _count("Parts of the collection.")
    shards_answered = _count("Parts that answered in time; fewer make the search `partial`.")
    groups_asked = _count("Probes sent: groups of neighbouring buckets, over all shards.")
    groups_answered = _count("Probes that answered in time.")
    problem = fields.Nested(
        ProblemSchema, allow_none=True, metadata=described("Why others did not, if so.")
    )
    buckets = _count("Buckets looked into.")
    radius = _count(
        "Every image whose code differs in at most so many bits was considered; -1 is no promise."
    )
    complete = fields.Boolean(metadata=described("Whether every image was considered."))
    candidates = _count("Images whose code was compared.")
    reranked = _count("Images whose feature was compared.")
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
    k = fields.Integer(attribute="options.k", metadata=described("Most hits asked for."))
    effort = fields.Integer(attribute="options.effort", metadata=described("Effort asked for."))
    created_at = _time("When it was asked.")
    started_at = _time("When a worker took it up.")
    finished_at = _time("When the answer was ready.")
    expires_at = _time("Until when the result is kept.")
    position = fields.Integer(
        allow_none=True, metadata=described("Searches ahead of it while it is queued.")
    )
    hits = fields.List(
        fields.Nested(FoundImageSchema),
        metadata=described("Nearest first; all of them, or those that were asked for."),
    )
    total = _count("Hits in the whole answer.")
    offset = _count("Hits left out before the first of `hits`.")
    report = fields.Nested(ReportSchema, allow_none=True)
    error = fields.Nested(ProblemSchema, allow_none=True)


class JobJsonSchema(Schema):
    """A job over a folder of the server, a list of addresses, or a crawl."""

    kind = fields.Enum(
        JobKind,
        by_value=fields.String,
        required=True,
        validate=validate.NoneOf([JobKind.UPLOAD], error="Send files as multipart/form-data."),
    )
    label = fields.String(
        validate=validate.Length(max=200), metadata=described("Name of the job, for people.")
    )
    labels = fields.List(fields.String(), metadata=described(_LABELS))
    path = fields.String(
        validate=validate.Length(min=1, max=4096),
        metadata=described("folder: a folder below one of the folder roots."),
    )
    urls = fields.List(
        fields.String(validate=validate.Length(max=4096)),
        metadata=described("urls: addresses of images."),
    )
    seed = fields.String(
        validate=validate.Length(max=4096), metadata=described("crawl: the page to start from.")
    )
    max_depth = fields.Integer(
        strict=True, metadata=described("crawl: links away from the seed that are followed.")
    )
    max_pages = fields.Integer(strict=True, metadata=described("crawl: most pages to visit."))

    @validates_schema
    def _says_where(self, data: Mapping[str, Any], **_: Any) -> None:
        needed = NEEDED_BY_KIND.get(data.get("kind", ""))
        if needed and needed not in data:
            raise ValidationError({needed: [f"A job of kind {data['kind']} needs it."]})


class JobFormSchema(Schema):
    """A job over uploaded files."""

    files = fields.List(
        Upload(),
        required=True,
        validate=validate.Length(min=1),
        metadata=described("The images; repeat the field."),
    )
    label = fields.String(
        validate=validate.Length(max=200), metadata=described("Name of the job, for people.")
    )
    labels = fields.List(fields.String(), metadata=described(_LABELS))


class CountsSchema(Schema):
    """submitted = indexed + duplicate + rejected + failed + cancelled + pending, at any moment."""

    submitted = _count("Items known so far.")
    indexed = _count("New in the collection.")
    duplicate = _count("The same bytes were there before.")
    rejected = _count("The file itself is at fault.")
    failed = _count("Could not be had this time.")
    cancelled = _count("Given up because the job was cancelled.")
    pending = _count("Still to do.")


class JobSchema(Schema):
    """A job that brings images into the collection."""

    id = fields.String()
    kind = fields.Enum(JobKind, by_value=fields.String)
    label = fields.String(metadata=described("Name of the job, for people."))
    state = fields.Enum(JobState, by_value=fields.String)
    counts = fields.Nested(CountsSchema)
    listing_done = fields.Boolean(metadata=described("Whether `submitted` is final."))
    created_at = _time("When it was asked.")
    started_at = _time("When its first items were handed out.")
    finished_at = _time("When its last item had its outcome.")
    rate_per_s = fields.Float(allow_none=True, metadata=described("Items finished per second."))
    eta_s = fields.Float(allow_none=True, metadata=described("Seconds left at that rate."))
    error = fields.Nested(ProblemSchema, allow_none=True)
    trouble = fields.Nested(
        ProblemSchema,
        allow_none=True,
        metadata=described(
            "What keeps a running job from getting on, such as a full disk; it goes on by itself."
        ),
    )
    pages = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        allow_none=True,
        metadata=described("crawl: pages by state."),
    )
    labels = fields.List(fields.String(), metadata=described("What its images are labelled with."))


class JobsQuery(Schema):
    """Which jobs to list, newest first."""

    limit = fields.Integer(load_default=50, validate=validate.Range(1, MAX_PAGE))
    before = fields.String(metadata=described("The `next` of the page before."))


class JobsSchema(Schema):
    """Jobs, newest first."""

    jobs = fields.List(fields.Nested(JobSchema))
    next = fields.String(
        allow_none=True, metadata=described("Pass as `before` for the next page; null at the end.")
    )


class ItemsQuery(Schema):
    """Which items of a job to list, in their order."""

    state = fields.Enum(ItemState, by_value=fields.String, metadata=described("Only these."))
    limit = fields.Integer(load_default=100, validate=validate.Range(1, MAX_PAGE))
    after = fields.Integer(load_default=0, metadata=described("The `next` of the page before."))


class ItemSchema(Schema):
    """One item of a job."""

    id = fields.Integer()
    source = fields.String(metadata=described("Path, address, or name of the uploaded file."))
    state = fields.Enum(ItemState, by_value=fields.String)
    problem = fields.Nested(ProblemSchema, allow_none=True)
    image_id = fields.String(allow_none=True, metadata=described("The image that it is."))
    attempts = _count("Times that a worker took it up.")
    finished_at = _time("When it had its outcome.")


class ItemsSchema(Schema):
    """Items of a job, in their order."""

    items = fields.List(fields.Nested(ItemSchema))
    next = fields.Integer(
        allow_none=True, metadata=described("Pass as `after` for the next page; null at the end.")
    )


class ImagesQuery(Schema):
    """Which images to list, newest first."""

    limit = fields.Integer(load_default=60, validate=validate.Range(1, MAX_PAGE))
    before = fields.String(metadata=described("The `next` of the page before."))


class ImageSchema(Schema):
    """One image of the collection."""

    id = fields.String(metadata=described("From the content of the file."))
    sources = fields.List(fields.String(), metadata=described("Where it came from."))
    added_at = _time("When it was added.")
    width_px = _count("Width in pixels.")
    height_px = _count("Height in pixels.")
    format = fields.String(metadata=described("File format, such as JPEG."))
    size_bytes = _count("Size of the file.")
    thumbnail_url = _ImageLink("images.thumbnail", "Path of a small JPEG.")
    original_url = _ImageLink("images.original", "Path of the file itself.")


class ImagesSchema(Schema):
    """Images, newest first."""

    count = _count("Images in the whole collection.")
    images = fields.List(fields.Nested(ImageSchema))
    next = fields.String(
        allow_none=True, metadata=described("Pass as `before` for the next page; null at the end.")
    )


class StatusSchema(Schema):
    """What runs here, how much there is to do, and the limits of a request."""

    version = fields.String()
    bundle = fields.String(metadata=described("Model bundle that the collection is built with."))
    bits = _count("Bits of a code.")
    dims = _count("Dimensions of a feature.")
    metric = fields.String(metadata=described("Distance between features."))
    images = _count("Images in the collection.")
    shards = _count("Parts that the collection is spread over.")
    broker = fields.String(validate=validate.OneOf(["embedded", "rabbitmq"]))
    ledger = fields.String(metadata=described("Database of jobs and results."))
    queued_searches = _count("Searches that wait.")
    open_jobs = _count("Jobs that are not finished.")
    result_hours = fields.Float(metadata=described("How long a search result is kept."))
    max_k = _count("Most hits that a search may ask for.")
    max_image_bytes = _count("Largest image file.")
    max_upload_bytes = _count("Largest request.")
    max_request_files = _count("Most files in one request.")
    folder_roots = fields.List(
        fields.String(), metadata=described("Folders of the server that jobs may take.")
    )
