use super::*;

#[test]
fn a_single_value_is_a_scalar_the_only_one_or_the_one_with_a_known_name() {
    assert_eq!(values("j.jsonl", "1\n[2]\n{\"any\":3}\n{\"a\":0,\"x\":4}\n", integer), [1, 2, 3, 4]);
    assert_eq!(values("j.csv", "any\n1\n", integer), [1]);
    assert_eq!(values("j.csv", "index,n,label\n1,2,a\n", integer), [2]);
    let expected = "expected one value, or the name 'x' (or 'n', 'index', 'h')";
    assert_eq!(error("j.csv", "a,b\n1,2\n", integer), format!("j.csv:2: {expected}"));
    assert_eq!(error("j.jsonl", "[]", integer), format!("j.jsonl:1: {expected}"));
}

#[test]
fn a_number_keeps_the_kind_in_which_it_is_written() {
    let expected = [Int(2), Float(2.0), Int(u64::MAX.into()), Float(0.5)];
    assert_eq!(values("j.jsonl", "2\n2.0\n18446744073709551615\n5e-1\n", number), expected);
    assert_eq!(values("j.csv", "x\n2\n2.0\n18446744073709551615\n5e-1\n", number), expected);
}

#[test]
fn a_pair_is_x_and_y_or_two_values_in_order() {
    let expected = [(Int(2), Float(0.5))];
    assert_eq!(values("j.csv", "y,note,x\n0.5,a,2\n", pair), expected);
    assert_eq!(values("j.csv", "base,exponent\n2,0.5\n", pair), expected);
    assert_eq!(values("j.jsonl", "[2,0.5]", pair), expected);
    assert_eq!(values("j.jsonl", "{\"y\":0.5,\"x\":2}", pair), expected);
    assert_eq!(error("j.csv", "x,z\n1,2\n", pair), "j.csv:2: no column 'y' (available: x, z)");
    for text in ["{\"a\":1,\"b\":2}", "[1]", "[1,2,3]", "1"] {
        assert_eq!(error("j.jsonl", text, pair), "j.jsonl:1: expected two values, or the names 'x' and 'y'");
    }
}

#[test]
fn summands_are_found_by_name() {
    let expected = [Summands { param1: Int(10), param2: Int(15) }];
    assert_eq!(values("j.csv", "param2,param1\n15,10\n", summands), expected);
    assert_eq!(values("j.jsonl", "{\"param2\":15,\"param1\":10,\"more\":[]}", summands), expected);
    assert_eq!(error("j.jsonl", "{\"param1\":1}", summands), "j.jsonl:1: no key 'param2' (available: param1)");
    assert_eq!(error("j.jsonl", "[1,2]", summands), "j.jsonl:1: no key 'param1' (available: none)");
}

#[test]
fn a_vector_is_p1_and_on_or_all_columns_or_an_array_of_any_length() {
    assert_eq!(values("j.csv", "p2,slow_fn,p1,p01,pi\n2,x,1,y,z\n", vector), [[1.0, 2.0]]);
    assert_eq!(values("j.csv", "a,b,c\n1,2,3\n", vector), [[1.0, 2.0, 3.0]]);
    assert_eq!(values("j.jsonl", "[]\n[1]\n[1,2.5,-3]", vector), [vec![], vec![1.0], vec![1.0, 2.5, -3.0]]);
    let twelve: Vec<String> = (1..=12).map(|i| format!("\"p{i}\":{i}")).collect();
    let text = format!("{{{}}}", twelve.join(","));
    assert_eq!(values("j.jsonl", &text, vector), [(1..=12).map(f64::from).collect::<Vec<_>>()]);
    assert_eq!(error("j.csv", "p1,p3\n1,3\n", vector), "j.csv:2: no column 'p2' (available: p1, p3)");
    let expected = "j.jsonl:1: expected an array of numbers, or the names 'p1', 'p2' and so on";
    assert_eq!(error("j.jsonl", "{\"a\":1}", vector), expected);
    assert_eq!(error("j.jsonl", "1", vector), expected);
}

#[test]
fn the_reference_file_gives_512_vectors_of_five() {
    let inputs = Inputs::from(Source::new("tests/data/slow_fn_512.csv"));
    assert_eq!(inputs.check(vector).unwrap(), Some(512));
    let vectors: Vec<Vec<f64>> = inputs.open().jobs(vector).map(|(_, job)| job.unwrap()).collect();
    assert!(vectors.iter().all(|vector| vector.len() == 5));
    assert_eq!(vectors[0][4], 0.423_654_799_338_904_7);
}
