//! Whether what records call `ok` is on disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Fails unless the output of each job whose last record says `ok` is on disk, in the output or what there is of it, as `expected`
/// says. Gives how many these are. A torn last record counts for nothing.
#[track_caller]
pub fn what_is_ok_is_on_disk(folder: &Path, records: &str, output: &str, expected: impl Fn(u64) -> String) -> usize {
    let partial = folder.join(format!("{output}.partial"));
    let sorted = folder.join(format!("{output}.partial.sorted"));
    let whole = folder.join(output);
    let mut last = BTreeMap::new();
    let text = fs::read_to_string(folder.join(records)).unwrap_or_default();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record on each line");
        last.insert(record["number"].as_u64().expect("a number"), record);
    }
    last.retain(|_, record| record["status"] == "ok");
    for (number, record) in &last {
        let place = &record["output"];
        let length = usize::try_from(place["length"].as_u64().expect("a length")).expect("it fits");
        let at = place["at"].as_u64().expect("a place");
        // A run that was killed while it put the output into order has the places of two files in its records.
        let found = [&partial, &sorted, &whole].map(|path| {
            let mut bytes = vec![0; length];
            let read = fs::File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at));
            read.map(|()| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
        });
        let is_there = found.contains(&Ok(expected(*number)));
        assert!(is_there, "job {number} is ok, and its output is not on disk: {found:?} at {at}");
    }
    last.len()
}

/// How many runs are killed where a test kills many: few, or as many as RANKPOOL_KILLS says.
pub fn kills(few: u32) -> u32 {
    std::env::var("RANKPOOL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}
