//! What becomes of values on their way to Python and back.

use super::*;

/// What comes back, for every Python at hand.
#[track_caller]
fn comes_back(imports: &str, cases: &[(&str, &str)]) {
    let values: Vec<_> = cases.iter().map(|(python, _)| format!("lambda: {python}")).collect();
    let module = module(&format!("{imports}\nvalues = [{}]\ndef f(k):\n    return values[k]()\n", values.join(",\n")));
    for exe in pythons() {
        let call = PythonCall { exe: Some(exe.clone()), ..module.call("f") };
        let list = answered(&mut worker(&call, |_| {}), list(0..cases.len()));
        for ((python, expected), (_, answer)) in cases.iter().zip(&list.answers) {
            match answer {
                Ok(json) => assert_eq!(json, expected, "{exe}: {python}"),
                Err(failure) => {
                    let message = expected.strip_prefix('!').unwrap_or_else(|| panic!("{exe}: {python}: {failure:?}"));
                    assert!(failure.message.contains(message), "{exe}: {python}: {failure:?}");
                    assert_eq!(failure.kind, "encode", "{exe}: {python}: {failure:?}");
                }
            }
        }
    }
}

#[test]
fn plain_values_come_back_unchanged() {
    let huge = "7".repeat(6000);
    let records = [
        huge.as_str(),
        "-0.0",
        "0.1",
        "1e+300",
        "5e-324",
        "1.7976931348623157e+308",
        "18446744073709551616",
        "null",
        "true",
        "\"\"",
        "\"gr\u{fc}\u{df}e \u{1f680} \\u0000 \\\\ \\\" \\n\"",
        "\"\\ud800x\"",
        "[]",
        "{}",
        r#"{"a":[1,{"b":null}],"":0}"#,
        "[[[[[[[[[[1]]]]]]]]]]",
    ];
    let module = module("def f(x):\n    return x\n");
    for exe in pythons() {
        let call = PythonCall { exe: Some(exe), ..module.call("f") };
        assert_eq!(answered(&mut worker(&call, |_| {}), list(records)).short(), records);
    }
}

#[test]
fn large_values_come_back_unchanged() {
    let record = format!("\"{}\"", "\u{e4}x".repeat(1_700_000));
    let list = module("def f(x):\n    return x\n").map("f", [&record, "1", &record]);
    assert!(list.short() == [&record, "1", &record]);
    let list = module("def f(x):\n    return 'x' * (x << 20)\n").map("f", [1, 65, 1]);
    assert_eq!(list.failure(1).kind, "garbage");
    assert!(list.answers[0].1.is_ok() && list.answers[2].1.is_ok());
}

#[test]
fn what_the_standard_library_has_comes_out_as_sensible_json() {
    let imports = "import collections, dataclasses, datetime, decimal, enum, fractions, pathlib, types, uuid, array\n\
        from datetime import timezone\n\
        Point = collections.namedtuple('Point', 'x y')\n\
        class Colour(enum.Enum):\n    RED = 'red'\n\
        class Level(enum.IntEnum):\n    HIGH = 3\n\
        class Word(str, enum.Enum):\n    YES = 'yes'\n\
        class Flag(enum.Flag):\n    A = 4\n\
        @dataclasses.dataclass\nclass Data:\n    a: int\n    b: object = None\n\
        class MyList(list): pass\nclass MyStr(str): pass\nclass MyInt(int): pass\nclass MyFloat(float): pass\nclass MyDict(dict): pass\n\
        inf = float('inf')";
    comes_back(
        imports,
        &[
            ("Point(1, Point(2, 3))", r#"{"x":1,"y":{"x":2,"y":3}}"#),
            ("[{'p': (Point(1, 2),)}]", r#"[{"p":[{"x":1,"y":2}]}]"#),
            ("[Colour.RED, Level.HIGH, Word.YES, Flag.A]", r#"["red",3,"yes",4]"#),
            ("{Colour.RED: 1, Level.HIGH: 2}", r#"{"red":1,"3":2}"#),
            ("Data(1, {2})", r#"{"a":1,"b":[2]}"#),
            ("pathlib.Path('a') / 'b'", r#""a/b""#),
            ("datetime.date(2024, 2, 29)", r#""2024-02-29""#),
            ("datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=timezone.utc)", r#""2024-02-29T01:02:03+00:00""#),
            ("datetime.time(1, 2)", r#""01:02:00""#),
            ("datetime.timedelta(minutes=1.5)", "90.0"),
            ("decimal.Decimal('1.10')", r#""1.10""#),
            ("[decimal.Decimal('nan'), fractions.Fraction(1, 3)]", r#"[null,"1/3"]"#),
            ("uuid.UUID(int=5)", r#""00000000-0000-0000-0000-000000000005""#),
            ("[{3, 1, 2}, frozenset('ba'), range(3)]", r#"[[1,2,3],["a","b"],[0,1,2]]"#),
            ("(i * i for i in range(3))", "[0,1,4]"),
            ("[map(str, [1]), zip('a', 'b'), iter([])]", r#"[["1"],[["a","b"]],[]]"#),
            ("[{1: 2}.keys(), {1: 2}.values(), {1: 2}.items()]", "[[1],[2],[[1,2]]]"),
            ("[collections.deque([1]), collections.Counter('a'), array.array('i', [7])]", r#"[[1],{"a":1},[7]]"#),
            ("types.MappingProxyType({'a': 1})", r#"{"a":1}"#),
            ("[b'text', bytearray(b'\\xff\\xfe'), memoryview(b'm')]", r#"["text","//4=","m"]"#),
            ("1 + 2j", "[1.0,2.0]"),
            ("[float('nan'), inf, -inf, {'x': inf}]", r#"[null,null,null,{"x":null}]"#),
            ("inf", "null"),
            ("{1: 2, None: 3, 1.5: 4, False: 5}", r#"{"1":2,"null":3,"1.5":4,"false":5}"#),
            ("{datetime.date(2024, 1, 1): 1, (1, 2): 2, b'k': 3}", r#"{"2024-01-01":1,"[1,2]":2,"k":3}"#),
            ("[MyList([1]), MyStr('s'), MyInt(2), MyFloat(0.5), MyDict(a=1)]", r#"[[1],"s",2,0.5,{"a":1}]"#),
            ("[(1, 2), ()]", "[[1,2],[]]"),
            ("None", "null"),
            ("types.SimpleNamespace", "!type is no JSON type"),
        ],
    );
}

#[test]
fn what_other_libraries_have_is_known_by_its_methods() {
    let imports = "\
        class Array:\n    def __init__(self, values): self.values = values\n    def tolist(self): return self.values\n\
        class Scalar:\n    def __init__(self, value): self.value = value\n    def item(self): return self.value\n    \
        def __hash__(self): return hash(self.value)\n    def __eq__(self, other): return True\n\
        class Long:\n    def item(self): return self\n    def __float__(self): return 0.5\n\
        class Frame:\n    def iterrows(self): pass\n    def to_dict(self, orient='dict'): return [{'a': 1}] if orient == 'records' else 0\n\
        class Series:\n    def to_dict(self): return {Scalar(3): Scalar(4)}\n    def tolist(self): return 0\n\
        class Kind: kind = 'M'\nclass Moment:\n    dtype = Kind\n    def astype(self, kind): return Array(['2024-01-01', 'NaT'])\n\
        class Endless:\n    def tolist(self): return Endless()\n\
        class Echo:\n    def tolist(self): return [Echo()]\n\
        class Pydantic:\n    def model_dump(self): return {'p': Scalar(1)}\n\
        nan = float('nan')";
    comes_back(
        imports,
        &[
            ("Array([[1.5, nan], [2, Scalar(3)]])", "[[1.5,null],[2,3]]"),
            ("{'s': Scalar(1.5), 'l': Long()}", r#"{"s":1.5,"l":0.5}"#),
            ("{Scalar(3): 1}", r#"{"3":1}"#),
            ("Frame()", r#"[{"a":1}]"#),
            ("Series()", r#"{"3":4}"#),
            ("Moment()", r#"["2024-01-01",null]"#),
            ("Pydantic()", r#"{"p":1}"#),
            ("Endless()", "!model.Endless is no JSON type"),
            ("Echo()", "!nested too deeply"),
        ],
    );
}

#[test]
fn what_has_no_json_form_is_a_failure_that_names_it() {
    let imports = "\
        class Model: pass\nloop = [1]\nloop.append({'again': loop})\n\
        deep = []\nfor _ in range(100000): deep = [deep]";
    comes_back(
        imports,
        &[
            ("Model()", "!model.Model is no JSON type"),
            ("{'a': [1, Model()]}", "!model.Model is no JSON type (at result['a'][1])"),
            ("loop", "!circular reference"),
            ("deep", "!nested too deeply"),
            ("Model", "!type is no JSON type"),
            ("len", "!is no JSON type"),
            ("{1: 2, '1': 3}", "!two keys are '1' as text"),
            ("1", "1"),
        ],
    );
}
