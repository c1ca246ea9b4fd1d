//! Types that the binary encoding does not support: the error names `Json`, and they cross ranks in `Json`.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::Json;
use crate::engine::error::JobErrorKind;
use crate::engine::func::Value;
use crate::launch::Launch;
use crate::pool::Pool;
use serde::{Deserialize, Serialize};

/// Runs a driver on two ranks.
fn local(driver: impl FnOnce(&Pool) + Send) {
    Launch::new().local(2).threads(1).run_value(|pool| {
        driver(pool);
        Ok(())
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    Pair { a: u8, b: Vec<f64> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Round { radius: f64 },
    Square { side: f64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, i32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    list: Vec<u8>,
}

/// Checks that the value crosses in `Json` as input, result, context and broadcast value, alone and as a part, and that without
/// `Json` it is refused with a message that names `Json`.
fn only_as_json<T: Value + Clone + Debug + PartialEq + Send + Sync>(pool: &Pool, value: &T) {
    let error = pool.apply(|value: T| drop(value), value.clone()).unwrap_err();
    assert!(matches!(error.kind, JobErrorKind::Encode | JobErrorKind::Decode), "{error}");
    assert!(error.message.contains("rankpool::Json"), "{error}");
    let json = Json(value.clone());
    assert_eq!(pool.apply(|value: Json<T>| value, json.clone()), Ok(json.clone()));
    let list = vec![(1, json.clone()), (2, json.clone())];
    assert_eq!(pool.apply(|list: Vec<(u8, Json<T>)>| list, list.clone()), Ok(list));
    let context = pool.map_with(json.clone(), [()], |context, ()| context.0.clone().into()).next();
    assert_eq!(context, Some(Ok(json.clone())));
    let shared = pool.broadcast(json.clone()).unwrap();
    assert_eq!(pool.submit_with(shared, |shared, ()| Json::clone(shared), ()).wait(), Ok(json));
}

#[test]
fn types_that_the_binary_encoding_refuses_cross_as_json_and_the_error_says_so() {
    local(|pool| {
        only_as_json(pool, &Untagged::Number(-5));
        only_as_json(pool, &Untagged::Text("text".into()));
        only_as_json(pool, &Untagged::Pair { a: 1, b: vec![0.1, 1e300] });
        only_as_json(pool, &Tagged::Round { radius: 0.25 });
        only_as_json(pool, &Tagged::Square { side: -0.0 });
        only_as_json(pool, &Flat { name: "n".into(), rest: BTreeMap::from([("x".into(), 1), ("y".into(), 2)]) });
        only_as_json(pool, &Skips { maybe: None, list: vec![] });
        only_as_json(pool, &Skips { maybe: None, list: vec![0] });
        only_as_json(pool, &serde_json::json!({"a": [1, 2.5, null, {"b": "c"}], "": false}));
    });
}

#[test]
fn json_that_cannot_be_written_or_read_fails_its_job_only() {
    local(|pool| {
        let keys = [BTreeMap::from([(vec![1u8], 1u8)]), BTreeMap::new()].map(Json);
        let results: Vec<_> = pool.map(|map: Json<BTreeMap<Vec<u8>, u8>>| map.0.len(), keys).collect();
        assert_eq!(results[0].as_ref().unwrap_err().kind, JobErrorKind::Encode);
        assert_eq!(results[1], Ok(0));
        let nan = pool.apply(|number: Json<f64>| number, Json(f64::NAN)).unwrap_err();
        assert_eq!(nan.kind, JobErrorKind::Decode);
    });
}

#[test]
fn in_text_the_wrapper_does_not_show() {
    assert_eq!(serde_json::to_string(&Json(vec![1, 2])).unwrap(), "[1,2]");
    assert_eq!(serde_json::from_str::<Json<Vec<u8>>>("[1,2]").unwrap(), Json(vec![1, 2]));
}
