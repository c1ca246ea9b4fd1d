//! What must not compile does not, and the message says what to do. The check is one that the compiler makes when it makes
//! code of a function, not when it checks types, so small programs are compiled against this build of the library.

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

/// The library that this test was built with: the youngest beside it.
fn library() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own file");
    let folder = own.parent().expect("it is in a folder").read_dir().expect("it can be read");
    let file_name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let libraries = folder.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        let name = file_name(path);
        name.starts_with("librankpool-") && name.ends_with(".rlib")
    });
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    libraries.max_by_key(age).expect("the library is beside its tests")
}

/// Compiles a driver; what the compiler says, and whether it is content.
fn compile(name: &str, driver: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("there is room for a small program");
    let program =
        format!("fn main() {{ rankpool::Launch::new().local(1).threads(1).run(|pool| {{ {driver} Ok(()) }}); }}");
    let source = folder.path().join(format!("{name}.rs"));
    std::fs::write(&source, program).expect("it can be written");
    let library = library();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        // Code is made, but not linked: what the library is linked with may be elsewhere.
        .args(["--edition=2024", "--crate-type=bin", "--emit=obj", "--color=never", "--out-dir"])
        .arg(folder.path())
        .arg("--extern")
        .arg(format!("rankpool={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().expect("it is in a folder").display()))
        .arg(&source)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the compiler can be started");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn functions_that_cannot_cross_ranks_do_not_compile_and_the_message_names_map_with() {
    let (built, said) = compile("plain", "assert_eq!(pool.apply(|x: u32| x + 1, 1), Ok(2));");
    assert!(built, "a program that does nothing wrong must compile, or this test says nothing:\n{said}");
    for (name, driver) in [
        ("captures", "let y = std::env::args().count(); pool.map(move |x: usize| x + y, 0..3).for_each(drop);"),
        ("pointer", "let f: fn(u32) -> u32 = |x| x; pool.map(f, 0..3).for_each(drop);"),
        ("submits", "let y = std::env::args().count(); let _ = pool.submit(move |x: usize| x + y, 3);"),
        (
            "inits",
            "let y = std::env::args().count(); pool.map_init(move || y, 0..3, |y, x: usize| x + *y).for_each(drop);",
        ),
        ("stars", "let f: fn(u32, u32) -> u32 = |x, y| x + y; pool.starmap(f, [(1, 2)]).for_each(drop);"),
    ] {
        let (built, said) = compile(name, driver);
        assert!(!built, "{name} compiles, but {driver}");
        assert!(said.contains("cannot cross ranks") && said.contains("map_with"), "the message does not help:\n{said}");
    }
}

#[test]
fn what_is_borrowed_or_cannot_be_serialised_is_refused_with_the_name_of_the_trait() {
    for (name, driver, word) in [
        ("borrows", "let y = 1; pool.map(|x: u32| x + y, 0..3).for_each(drop);", "borrow"),
        ("raw", "pool.map(|x: std::rc::Rc<std::cell::Cell<*const u8>>| (), []).for_each(drop);", "Serialize"),
        ("result", "pool.map(|x: u32| std::thread::current(), 0..3).for_each(drop);", "Serialize"),
    ] {
        let (built, said) = compile(name, driver);
        assert!(!built, "{name} compiles, but {driver}");
        assert!(said.contains(word), "the message does not name {word}:\n{said}");
    }
}
