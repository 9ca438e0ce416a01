"""An object store for tests: whole objects in a dict, no folders, no append, no rename."""

import io

import fsspec


class _Upload(io.BytesIO):
    def __init__(self, objects, name):
        super().__init__()
        self._objects, self._name = objects, name

    def close(self):
        if not self.closed:
            self._objects[self._name] = self.getvalue()
        super().close()


class ObjectStore(fsspec.AbstractFileSystem):
    """Stands for gs://; `objects` by name, `ranges` of the parts that were read."""

    protocol = ("gs", "gcs")
    cachable = False
    objects: dict[str, bytes] = {}
    ranges: list[tuple[str, int, int]] = []

    def __init__(self, **_):
        super().__init__()

    def info(self, path, **_):
        name = self._strip_protocol(path)
        if name in self.objects:
            return {"name": name, "type": "file", "size": len(self.objects[name])}
        if any(other.startswith(f"{name}/") for other in self.objects):
            return {"name": name, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, **_):
        folder = self._strip_protocol(path)
        if self.info(folder)["type"] == "file":
            names = {folder}
        else:
            below = [n[len(folder) + 1 :] for n in self.objects if n.startswith(f"{folder}/")]
            names = {f"{folder}/{name.partition('/')[0]}" for name in below}
        return [self.info(name) if detail else name for name in sorted(names)]

    def _open(self, path, mode="rb", **_):
        if mode == "wb":
            return _Upload(self.objects, self._strip_protocol(path))
        if mode != "rb":
            raise AssertionError(f"an object cannot be opened with mode {mode}")
        self.info(path)
        return io.BytesIO(self.objects[self._strip_protocol(path)])

    def cat_file(self, path, start=None, end=None, **_):
        name = self._strip_protocol(path)
        self.ranges.append((name, start, end))
        return self.objects[name][start:end]

    def _rm(self, path):
        self.objects.pop(self._strip_protocol(path), None)

    def mv(self, *_, **__):
        raise AssertionError("a store has no folders, and renames nothing")

    rename = move = cp_file = copy = mkdir = makedirs = mv
