"""Shapes of what the API takes and gives; the OpenAPI document is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_smorest.fields import Upload
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from webui.fields import ImageLink, described, number, unix_time
from workers.records import ItemState, JobKind, JobState

MAX_WAIT_S = 30
MAX_PAGE = 500
_LABELS = "Words that its images are labelled with, for filters of searches."
NEEDED_BY_KIND = {JobKind.FOLDER: "path", JobKind.URLS: "urls", JobKind.CRAWL: "seed"}


class WaitQuery(Schema):
    """How long an answer may take."""

    wait = fields.Float(
        load_default=0,
        validate=validate.Range(0, MAX_WAIT_S),
        metadata=described("Answer when it is finished, or after this many seconds."),
    )


class ProblemSchema(Schema):
    """Why something went wrong."""

    code = fields.String(metadata=described("Stable word for programs."))
    message = fields.String(metadata=described("A sentence for people."))
    remedy = fields.String(metadata=described("What to do; may be empty."))


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

    submitted = number("Items known so far.")
    indexed = number("New in the collection.")
    duplicate = number("The same bytes were there before.")
    rejected = number("The file itself is at fault.")
    failed = number("Could not be had this time.")
    cancelled = number("Given up because the job was cancelled.")
    pending = number("Still to do.")


class JobSchema(Schema):
    """A job that brings images into the collection."""

    id = fields.String()
    kind = fields.Enum(JobKind, by_value=fields.String)
    label = fields.String(metadata=described("Name of the job, for people."))
    state = fields.Enum(JobState, by_value=fields.String)
    counts = fields.Nested(CountsSchema)
    listing_done = fields.Boolean(metadata=described("Whether `submitted` is final."))
    created_at = unix_time("When it was asked.")
    started_at = unix_time("When its first items were handed out.")
    finished_at = unix_time("When its last item had its outcome.")
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
    attempts = number("Times that a worker took it up.")
    finished_at = unix_time("When it had its outcome.")


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
    labels = fields.List(fields.String(), metadata=described("What it is labelled with."))
    added_at = unix_time("When it was added.")
    width_px = number("Width in pixels.")
    height_px = number("Height in pixels.")
    format = fields.String(metadata=described("File format, such as JPEG."))
    size_bytes = number("Size of the file.")
    thumbnail_url = ImageLink("images.thumbnail", "Path of a small JPEG.")
    original_url = ImageLink("images.original", "Path of the file itself.")


class ImagesSchema(Schema):
    """Images, newest first."""

    count = number("Images in the whole collection.")
    images = fields.List(fields.Nested(ImageSchema))
    next = fields.String(
        allow_none=True, metadata=described("Pass as `before` for the next page; null at the end.")
    )


class LabelSchema(Schema):
    """One label."""

    label = fields.String()
    images = number("Images that have it.")


class LabelsSchema(Schema):
    """Labels, the most frequent first."""

    labels = fields.List(fields.Nested(LabelSchema))


class StatusSchema(Schema):
    """What runs here, how much there is to do, and the limits of a request."""

    version = fields.String()
    bundle = fields.String(metadata=described("Model bundle that the collection is built with."))
    bits = number("Bits of a code.")
    dims = number("Dimensions of a feature.")
    metric = fields.String(metadata=described("Distance between features."))
    images = number("Images in the collection.")
    shards = number("Parts that the collection is spread over.")
    broker = fields.String(validate=validate.OneOf(["embedded", "rabbitmq"]))
    ledger = fields.String(metadata=described("Database of jobs and results."))
    queued_searches = number("Searches that wait.")
    open_jobs = number("Jobs that are not finished.")
    result_hours = fields.Float(metadata=described("How long a search result is kept."))
    max_k = number("Most hits that a search may ask for.")
    max_image_bytes = number("Largest image file.")
    max_upload_bytes = number("Largest request.")
    max_request_files = number("Most files in one request.")
    folder_roots = fields.List(
        fields.String(), metadata=described("Folders of the server that jobs may take.")
    )
