from __future__ import annotations

import io
from typing import Any

import pytest
from openai.types import FileObject

from batchgen.batches.file_records import NewFile
from batchgen.errors import QuotaExceeded
from batchgen.inputs.stored_input import first_line
from batchgen.service import batches as service_batches
from batchgen.service.files import Content, Files
from batchgen.storage.storage import Storage
from batchgen.tenants.quotas import Quotas
from tests.support.api import OURS, Api
from tests.support.batches import CHAT, checked, create, job_of, requests
from tests.support.homes import answer_some, finish

UNKNOWN = "file-" + "0" * 32


def on_disk(api: Api) -> list[str]:
    """Return the names of stored inputs, and of what is left of others."""
    return [path.name for path in (api.service.storage.root / "inputs").glob("*")]


def post(api: Api, data: bytes = b"", /, **fields: Any) -> Any:
    form = {"purpose": "batch", **fields}
    return api.ours.post(
        "/v1/files",
        data={name: value for name, value in form.items() if value is not None},
        files={"file": ("requests.jsonl", data or requests())},
    )


def test_an_upload_has_every_field_of_openais(api: Api) -> None:
    expiry: dict[str, Any] = {
        "expires_after[anchor]": "created_at",
        "expires_after[seconds]": "3600",
    }
    answer = post(api, **expiry)
    assert answer.status_code == 200
    file = answer.json()
    assert set(FileObject.model_fields) == set(file)
    assert FileObject.model_validate(file, strict=True).bytes == len(requests())
    assert file["expires_at"] - file["created_at"] == 3600
    assert (file["filename"], file["status"]) == ("requests.jsonl", "processed")
    assert api.ours.get(f"/v1/files/{file['id']}").json() == file
    assert api.ours.get(f"/v1/files/{file['id']}/content").content == requests()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": None}, "purpose"),
        ({"purpose": "fine-tune"}, "purpose"),
        ({"expires_after[seconds]": "3600"}, "expires_after"),
        ({"expires_after[anchor]": "created_at"}, "expires_after"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "expires_after.seconds",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "-1"},
            "expires_after",
        ),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_form_that_cannot_be_used_leaves_no_file(
    api: Api, fields: dict[str, Any], param: str
) -> None:
    answer = post(api, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert api.ours.get("/v1/files").json()["data"] == []
    assert on_disk(api) == []


def test_a_file_without_lines_is_refused(api: Api) -> None:
    answer = post(api, b"\n\n")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "no line" in answer.json()["error"]["message"]


def test_pages(api: Api) -> None:
    ids = [post(api, requests(number)).json()["id"] for number in (1, 2, 3)]
    page = api.ours.get("/v1/files", params={"limit": 2}).json()
    assert [file["id"] for file in page["data"]] == ids[:0:-1]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    rest = api.ours.get("/v1/files", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == (ids[:1], False)
    oldest = api.ours.get("/v1/files", params={"order": "asc", "limit": 1}).json()
    assert oldest["data"][0]["id"] == ids[0]
    empty = api.ours.get("/v1/files", params={"purpose": "batch_output"}).json()
    assert (empty["data"], empty["first_id"], empty["last_id"]) == ([], None, None)
    assert api.ours.get("/v1/files?purpose=%00").json()["data"] == []
    for bad in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}):
        assert api.ours.get("/v1/files", params=bad).status_code == 400


@pytest.mark.parametrize("file_id", [UNKNOWN, "file-1", "batch_" + "0" * 32, "x'--"])
def test_an_unknown_file_is_404(api: Api, file_id: str) -> None:
    for answer in (
        api.ours.get(f"/v1/files/{file_id}"),
        api.ours.get(f"/v1/files/{file_id}/content"),
        api.ours.delete(f"/v1/files/{file_id}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")


def test_a_deletion(api: Api) -> None:
    file_id = post(api).json()["id"]
    assert api.theirs.delete(f"/v1/files/{file_id}").status_code == 404
    answer = api.ours.delete(f"/v1/files/{file_id}")
    assert answer.json() == {"id": file_id, "object": "file", "deleted": True}
    assert api.ours.get(f"/v1/files/{file_id}").status_code == 404


def test_results_are_lines_while_the_batch_goes_on_and_after(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = checked(service, create(service, requests(40)))
    job, path = job_of(service, batch), f"/v1/files/file-{batch.output_file_id}"
    answer_some(service, job, shards=1, failing=[3])
    running = api.ours.get(f"{path}/content")
    assert running.headers["x-incomplete"] == "true"
    assert "etag" not in running.headers
    known = api.ours.get(path).json()
    assert (known["bytes"], known["status"]) == (0, "uploaded")
    assert api.ours.delete(path).status_code == 409
    finish(service, job)
    whole = api.ours.get(f"{path}/content")
    assert whole.content.startswith(running.content)
    assert running.content.count(b"\n") < whole.content.count(b"\n") == 39
    assert "x-incomplete" not in whole.headers
    assert api.ours.get(path).json()["bytes"] == len(whole.content)
    errors = api.ours.get(f"/v1/files/file-{batch.error_file_id}/content")
    [line] = errors.text.splitlines()
    assert '"custom_id":"row-3"' in line
    listed = api.ours.get("/v1/files", params={"purpose": "batch_output"}).json()["data"]
    assert [file["id"] for file in listed] == [f"file-{batch.output_file_id}"]
    assert service.files.keeper.count_outputs() == 1
    assert len(api.ours.get("/v1/files", params={"purpose": "batch_output"}).json()["data"]) == 2


def test_ranges_of_an_upload_and_of_results(api: Api) -> None:
    service = api.service.for_tenant("ours")
    batch = checked(service, create(service, requests(5)))
    finish(service, job_of(service, batch))
    for file_id in (batch.input_file_id, batch.output_file_id):
        path = f"/v1/files/file-{file_id}/content"
        whole = api.ours.get(path)
        part = api.ours.get(path, headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
        assert api.ours.get(path, headers={"range": "bytes=-7"}).content == whole.content[-7:]
        outside = api.ours.get(path, headers={"range": "bytes=99999999-"})
        assert outside.status_code == 416
        again = {"range": "bytes=10-19", "if-range": whole.headers["etag"]}
        assert api.ours.get(path, headers=again).status_code == 206
        other = {"range": "bytes=10-19", "if-range": '"another"'}
        assert api.ours.get(path, headers=other).content == whole.content


def test_what_a_quota_refuses_takes_no_room(api: Api) -> None:
    api.ours.get("/v1/files")
    api.service.access.tenants.set_quotas(OURS, Quotas(max_bytes=len(requests(2))))
    assert post(api, requests(2)).status_code == 200
    kept = set(on_disk(api))
    answer = post(api, requests(3))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded")
    assert set(on_disk(api)) == kept


def test_two_uploads_at_once_leave_no_room_for_both(api: Api) -> None:
    api.ours.get("/v1/files")
    api.service.access.tenants.set_quotas(OURS, Quotas(max_bytes=len(requests(2))))
    files = api.service.for_tenant(OURS).files
    first, second = (files.store(io.BytesIO(data)) for data in (requests(2), requests(1)))
    files.register(first, NewFile(filename="a"))
    kept = [name for name in on_disk(api) if name.startswith(first.sha256)]
    with pytest.raises(QuotaExceeded):
        files.register(second, NewFile(filename="b"))
    assert sorted(on_disk(api)) == sorted(kept)


def test_a_file_that_is_deleted_meanwhile_is_404(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = post(api).json()["id"]
    content = Files.content

    def raced(files: Files, stored: str) -> Content:
        found = content(files, stored)
        files.delete(stored)
        return found

    monkeypatch.setattr(Files, "content", raced)
    answer = api.ours.get(f"/v1/files/{file_id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_not_found")


def test_a_batch_on_a_file_that_is_deleted_meanwhile_is_404(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(api, requests(1))  # an empty folder would be that of another store
    file_id = post(api).json()["id"]

    def raced(storage: Storage, sha256: str) -> bytes:
        assert api.ours.delete(f"/v1/files/{file_id}").status_code == 200
        return first_line(storage, sha256)

    monkeypatch.setattr(service_batches, "first_line", raced)
    new = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    answer = api.ours.post("/v1/batches", json=new)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, "input_file_id")
