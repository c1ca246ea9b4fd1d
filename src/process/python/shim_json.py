

# ---- JSON: from any value to text. Sent to the interpreter behind shim.py ----

# Numbers, strings, lists, tuples and dicts of exactly these types go straight to the encoder. Other values are converted first:
#
#     numpy and the like      by their methods: tolist, item, to_dict, to_dicts, model_dump; a table is a list of rows; if labels
#                             would be the same key, a list of [label, value] stands in place of an object
#     dataclass, named tuple  an object
#     Enum                    its value
#     date, datetime, time    ISO text; timedelta: seconds
#     Path, UUID              text; Decimal and Fraction, too, because readers of JSON would round them
#     bytes                   text if it is UTF-8, otherwise base64
#     set, iterator, range    a list; a set is sorted if it can be
#     complex                 [real, imaginary]
#     NaN, Infinity           null
#     keys of other types     text; two that are the same text have no JSON form


INFINITY = float("inf")
MOST_ITEMS = 10_000_000
MOST_DEPTH = 500
ATOMS = frozenset((str, int, float, bool, type(None)))
CONTAINERS = frozenset((list, tuple, dict))
PLAIN = ATOMS | CONTAINERS
TEXT = frozenset((str,))


class NoJson(Exception):
    """A value has no form in JSON."""

    def __init__(self, message, path=""):
        self.message, self.path = message, path

    def __str__(self):
        return "the result has no JSON form: " + self.message + (" (at result%s)" % self.path if self.path else "")

    def below(self, key):
        return NoJson(self.message, ("[%r]" % (key,))[:100] + self.path)


def refuse(value):
    raise TypeError(type(value))


def encoder(text):
    """Returns a function that encodes plain values; unlike `json.dumps`, it builds no encoder for each call."""
    markers = {}
    make = json.encoder.c_make_encoder
    if make is None:
        return json.JSONEncoder(ensure_ascii=text is not json.encoder.encode_basestring, allow_nan=False,
                                separators=(",", ":"), default=refuse).encode
    encode = make(markers, refuse, text, None, ":", ",", False, False, False)

    def to_text(value):
        try:
            return "".join(encode(value, 0))
        except BaseException:
            markers.clear()
            raise
    return to_text


dump = encoder(json.encoder.encode_basestring)
dump_ascii = encoder(json.encoder.encode_basestring_ascii)


def to_bytes(value):
    """Encodes plain values as UTF-8; lone surrogates, which UTF-8 cannot encode, are escaped."""
    try:
        return dump(value).encode()
    except UnicodeEncodeError:
        return dump_ascii(value).encode()


def is_plain(value):
    """Whether the value consists of exact JSON types only. (The encoder would write named tuples as lists.)"""
    kind = type(value)
    if kind in ATOMS:
        return True
    if kind not in CONTAINERS:
        return False
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) is dict:
            if not set(map(type, value)) <= TEXT:
                return False
            value = value.values()
        kinds = set(map(type, value))
        if not kinds <= PLAIN:
            return False
        if not kinds <= ATOMS:
            waiting.extend(item for item in value if type(item) in CONTAINERS)
    return True


def encode(value):
    """Encodes any value as JSON, in bytes."""
    kind = type(value)
    if kind is int:
        return b"%d" % value
    if kind is float and -INFINITY < value < INFINITY:
        return repr(value).encode()
    try:
        if is_plain(value):
            return to_bytes(value)
    except (ValueError, TypeError):
        pass  # NaN, or a list that contains itself: the converter writes null for the first and reports the second.
    except RecursionError:
        raise NoJson("it is nested too deeply") from None
    try:
        return to_bytes(Converter().plain(value))
    except RecursionError:
        raise NoJson("it is nested too deeply") from None


class Converter:
    """Converts values to plain ones; raises NoJson for types that it does not know."""

    def __init__(self):
        self.open = set()

    def plain(self, value):
        kind = type(value)
        if kind is float:
            return value if -INFINITY < value < INFINITY else None
        if kind in ATOMS:
            return value
        if id(value) in self.open:
            raise NoJson("it contains itself: circular reference to a %s" % name_of(kind))
        if len(self.open) >= MOST_DEPTH:
            raise NoJson("it is nested too deeply")
        self.open.add(id(value))
        try:
            return self.container(value, kind) if kind in CONTAINERS else self.other(value, kind)
        finally:
            self.open.discard(id(value))

    def container(self, value, kind):
        if kind is dict:
            return self.mapping(value.items())
        return self.sequence(value)

    def sequence(self, items):
        kinds = set(map(type, items))
        if kinds <= ATOMS and float not in kinds:
            return items
        result = []
        for item in items:
            try:
                result.append(self.plain(item))
            except NoJson as error:
                raise error.below(len(result)) from None
        return result

    def mapping(self, items):
        result = {}
        for key, value in items:
            try:
                text = key if type(key) is str else self.key(key)
                if text in result:
                    raise NoJson("two keys are %r as text" % text)
                result[text] = self.plain(value)
            except NoJson as error:
                raise error.below(key) from None
        return result

    def key(self, key):
        if type(key) is float:
            return repr(key)
        plain = self.plain(key)
        return plain if isinstance(plain, str) else dump(plain)

    def other(self, value, kind):
        bases = {"%s.%s" % (base.__module__, base.__qualname__) for base in kind.__mro__}
        for type_, convert in CONVERTERS:
            if type_ in bases if type(type_) is str else isinstance(value, type_):
                return self.plain(convert(value))
        if hasattr(kind, "__dataclass_fields__"):
            return self.mapping((name, getattr(value, name)) for name in kind.__dataclass_fields__
                                if hasattr(value, name))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self.mapping(zip(value._fields, value))
        if isinstance(value, (list, tuple, range)):
            return self.sequence(list(value))
        if isinstance(value, abc.Mapping):
            return self.mapping(value.items())
        if not isinstance(value, type):
            found, plain = duck(value, kind)
            if found:
                return self.plain(plain)
        raise NoJson("%s is not a JSON type" % name_of(kind))


def generator():
    yield


async def coroutine():
    pass


async def asynchronous():
    yield


def type_of_coroutine():
    value = coroutine()
    value.close()
    return type(value)


GENERATOR, ASYNCHRONOUS, COROUTINE = type(generator()), type(asynchronous()), type_of_coroutine()


# Conversions of the standard library's types, tried in this order. Types are found by name, so that their modules need not be
# imported here.
CONVERTERS = (
    ("enum.Enum", lambda value: value.value),
    (str, str.__str__),
    (int, int),
    # numpy.float64 is a float, too.
    (float, float.__float__),
    (complex, lambda value: [value.real, value.imag]),
    ((bytes, bytearray, memoryview), lambda value: text_of(value)),
    ("datetime.date", lambda value: value.isoformat() if value == value else None),
    ("datetime.time", lambda value: value.isoformat()),
    ("datetime.timedelta", lambda value: value.total_seconds() if value == value else None),
    ("pathlib.PurePath", str),
    ("pathlib._local.PurePath", str),
    ("decimal.Decimal", lambda value: str(value) if value.is_finite() else None),
    ("uuid.UUID", str),
    ("fractions.Fraction", str),
    ("collections.deque", list),
    ((abc.KeysView, abc.ValuesView, abc.ItemsView), list),
    (abc.Set, lambda value: in_order(value)),
    ((GENERATOR, abc.Iterator), lambda value: all_of(value)),
    ((COROUTINE, ASYNCHRONOUS), lambda value: awaited(value)),
)


def text_of(value):
    """Returns bytes as text if they are UTF-8, otherwise as base64."""
    value = bytes(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return binascii.b2a_base64(value, newline=False).decode()


def in_order(value):
    """Sorts a set if it can be sorted: the order of a set of strings differs between processes."""
    try:
        return sorted(value)
    except TypeError:
        return list(value)


def all_of(items):
    result = list(islice(items, MOST_ITEMS + 1))
    if len(result) > MOST_ITEMS:
        raise NoJson("an iterator with more than %d items" % MOST_ITEMS)
    return result


_loop = None


def awaited(value):
    """Returns the result of an `async` function; runs it on an event loop that is kept."""
    global _loop
    with pythons_own():
        import asyncio
    if _loop is None:
        _loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_loop)
    if not hasattr(value, "__aiter__"):
        return _loop.run_until_complete(value)

    async def collect():
        return [item async for item in value]
    return _loop.run_until_complete(collect())


def collide(labels):
    """Whether two of the labels would be the same key of a JSON object."""
    if not set(map(type, labels)) <= TEXT:
        key = Converter().key
        labels = [label if type(label) is str else key(label) for label in labels]
    return len(set(labels)) < len(labels)


def rows_of(table):
    """Returns the rows of a pandas.DataFrame: objects, or lists of [label, value] if labels occur twice."""
    labels = list(getattr(table, "columns", ()))
    if not collide(labels):
        return table.to_dict("records")
    return [[[label, item] for label, item in zip(labels, row)] for row in table.itertuples(index=False, name=None)]


def duck(value, kind):
    """Converts arrays, scalars and tables of other libraries without importing these; returns whether it could, and the value."""
    for method in ("to_dicts", "model_dump"):
        if callable(getattr(value, method, None)):
            return True, getattr(value, method)()
    if callable(getattr(value, "to_dict", None)):
        if hasattr(value, "iterrows"):
            return True, rows_of(value)
        # A pandas.Series.
        labels = getattr(value, "index", None)
        if hasattr(labels, "tolist") and hasattr(value, "items") and collide(list(labels)):
            return True, [[label, item] for label, item in value.items()]
        return True, value.to_dict()
    dtype = getattr(getattr(value, "dtype", None), "kind", None)
    if dtype == "M" and hasattr(value, "astype"):
        return True, without(value.astype(str).tolist(), "NaT")
    if dtype == "m" and hasattr(value, "astype"):
        nanoseconds = value.astype("timedelta64[ns]").astype("int64").tolist()
        return True, without(nanoseconds, -2**63, lambda item: item / 1e9)
    if kind.__name__ in ("NAType", "NaTType"):
        return True, None
    for method in ("tolist", "to_list", "item"):
        if callable(getattr(value, method, None)):
            plain = getattr(value, method)()
            # The item of a numpy.longdouble is a numpy.longdouble again.
            if type(plain) is kind:
                if not hasattr(kind, "__float__"):
                    break
                plain = float(plain)
            return True, plain
    if hasattr(kind, "__attrs_attrs__"):
        return True, {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    return False, None


def without(value, missing, convert=lambda item: item):
    if isinstance(value, list):
        return [without(item, missing, convert) for item in value]
    return None if value == missing else convert(value)


def name_of(kind):
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "." + kind.__qualname__
