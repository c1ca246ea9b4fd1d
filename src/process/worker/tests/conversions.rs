//! Conversions of values to Python and back.

use super::*;

/// Checks the results of these values in every installed Python.
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
fn values_of_the_standard_library_become_sensible_json() {
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
            ("types.SimpleNamespace", "!type is not a JSON type"),
        ],
    );
}

#[test]
fn values_of_other_libraries_are_recognised_by_their_methods() {
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
            ("Endless()", "!model.Endless is not a JSON type"),
            ("Echo()", "!nested too deeply"),
        ],
    );
}

#[test]
fn a_value_without_json_form_is_a_failure_that_names_it() {
    let imports = "\
        import collections, dataclasses, enum, types\n\
        class Colour(enum.Enum):\n    RED = 'red'\n\
        class Text(str):\n    def __hash__(self): return 1\n    def __eq__(self, other): return self is other\n\
        class OtherText(Text): pass\n\
        @dataclasses.dataclass\nclass Data:\n    a: object\n\
        class Twice(collections.abc.Mapping):\n    def __len__(self): return 2\n    def __iter__(self): return iter('kk')\n    \
        def __getitem__(self, key): return 1\n\
        class Model: pass\nloop = [1]\nloop.append({'again': loop})\n\
        deep = []\nfor _ in range(100000): deep = [deep]";
    comes_back(
        imports,
        &[
            ("Model()", "!model.Model is not a JSON type"),
            ("{'a': [1, Model()]}", "!model.Model is not a JSON type (at result['a'][1])"),
            ("loop", "!circular reference"),
            ("deep", "!nested too deeply"),
            ("Model", "!type is not a JSON type"),
            ("len", "!is not a JSON type"),
            ("{1: 2, '1': 3}", "!two keys are '1' as text"),
            ("{True: 2, 'true': 3}", "!two keys are 'true' as text"),
            ("{None: 2, 'null': 3}", "!two keys are 'null' as text"),
            ("{1.5: 2, '1.5': 3}", "!two keys are '1.5' as text"),
            ("{float('nan'): 2, float('nan'): 3}", "!two keys are 'nan' as text"),
            ("{b'k': 2, 'k': 3}", "!two keys are 'k' as text"),
            ("{(1, 2): 2, '[1,2]': 3}", "!two keys are '[1,2]' as text"),
            ("{Colour.RED: 2, 'red': 3}", "!two keys are 'red' as text"),
            ("{Text('k'): 2, OtherText('k'): 3}", "!two keys are 'k' as text"),
            ("collections.Counter([1, '1'])", "!two keys are '1' as text"),
            ("types.MappingProxyType({1: 2, '1': 3})", "!two keys are '1' as text"),
            ("collections.OrderedDict([(1, 2), ('1', 3)])", "!two keys are '1' as text"),
            ("Data({1: 2, '1': 3})", "!two keys are '1' as text (at result['a']['1'])"),
            ("[{'a': {1: 2, '1': 3}}]", "!two keys are '1' as text (at result[0]['a']['1'])"),
            ("Twice()", "!two keys are 'k' as text"),
            ("1", "1"),
        ],
    );
}

/// A stand-in for pandas: labels, and `to_dict`, which keeps the last value of each.
const TABLES: &str = "\
class Labels:
    def __init__(self, labels): self.labels = list(labels)
    def __iter__(self): return iter(self.labels)
    def tolist(self): return self.labels
class Series:
    def __init__(self, values, index): self.values, self.index = values, Labels(index)
    def items(self): return zip(self.index, self.values)
    def to_dict(self): return dict(self.items())
    def tolist(self): return self.values
class DataFrame:
    def __init__(self, rows, columns): self.rows, self.columns = rows, Labels(columns)
    def iterrows(self): raise NotImplementedError
    def itertuples(self, index, name): return (tuple(row) for row in self.rows)
    def to_dict(self, orient): return [dict(zip(self.columns, row)) for row in self.rows]
";

/// Values of series and tables, and the expected results.
const LABELLED: [(&str, &str); 11] = [
    ("Series([1, 2], index=['a', 'b'])", r#"{"a":1,"b":2}"#),
    ("Series([1, 2], index=['a', 'a'])", r#"[["a",1],["a",2]]"#),
    ("Series([1, 2], index=[1, '1'])", r#"[[1,1],["1",2]]"#),
    ("Series([1, 2, 3], index=[7, 8, 7])", "[[7,1],[8,2],[7,3]]"),
    ("Series([], index=[])", "{}"),
    ("DataFrame([[1, 2.5], [3, 4.5]], columns=['a', 'b'])", r#"[{"a":1,"b":2.5},{"a":3,"b":4.5}]"#),
    ("DataFrame([[1, 2.5], [3, 4.5]], columns=['a', 'a'])", r#"[[["a",1],["a",2.5]],[["a",3],["a",4.5]]]"#),
    ("DataFrame([[1, 2]], columns=[1, '1'])", r#"[[[1,1],["1",2]]]"#),
    ("DataFrame([[1, 2]], columns=[('x', 1), ('x', 1)])", r#"[[[["x",1],1],[["x",1],2]]]"#),
    ("{'s': [Series([1, 2], index=['a', 'a'])]}", r#"{"s":[[["a",1],["a",2]]]}"#),
    ("DataFrame([], columns=['a', 'a'])", "[]"),
];

#[test]
fn labels_that_occur_twice_lose_no_value() {
    comes_back(TABLES, &LABELLED);
    let module =
        module(&format!("{TABLES}def f(xs):\n    return DataFrame([[x, -x] for x in xs], columns=['a', 'a'])\n"));
    let list = answered(&mut module.batches("f", 2), list(1..=3));
    assert_eq!(list.short(), [1, 2, 3].map(|x| format!("[[\"a\",{x}],[\"a\",-{x}]]")));
}

#[test]
fn pandas_labels_that_occur_twice_lose_no_value() {
    let has_pandas = std::process::Command::new("python3").args(["-c", "import pandas"]).output();
    if !has_pandas.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 has no pandas");
        return;
    }
    let values: Vec<_> = LABELLED.iter().map(|(python, _)| format!("lambda: {python}")).collect();
    let text = format!(
        "from pandas import DataFrame, Series\nvalues = [{}]\n\
         def f(k):\n    return values[k]()\n\
         def table(xs):\n    return DataFrame([[x, -x] for x in xs], columns=['a', 'a'])\n\
         def index(k):\n    return DataFrame({{'x': [k, 2]}}, index=['a', 'a'])\n",
        values.join(", ")
    );
    let module = module(&text);
    let answers = module.map("f", 0..LABELLED.len()).short();
    for ((python, expected), answer) in LABELLED.iter().zip(answers) {
        assert_eq!(answer, *expected, "{python}");
    }
    assert_eq!(answered(&mut module.batches("table", 2), list([1])).short(), [r#"[["a",1],["a",-1]]"#]);
    assert_eq!(module.map("index", [1]).short(), [r#"[{"x":1},{"x":2}]"#]);
}
