//! What must not compile does not, and the message says what to do. The check is one that the compiler makes when it builds
//! the function for real, so a small program is built, with this crate's own build as its library.

use std::path::Path;
use std::process::Command;

/// Compiles a driver; what the compiler says, and whether it is content.
fn compile(name: &str, driver: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("there is room for a small program");
    let program =
        format!("pub fn main() {{ rankpool::Launch::new().local(1).threads(1).run(|pool| {{ {driver} Ok(()) }}); }}");
    std::fs::create_dir(folder.path().join("src")).expect("the folder is new");
    std::fs::write(folder.path().join("src/main.rs"), program).expect("it can be written");
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n[workspace]\n[profile.dev]\ndebug = false\nincremental = false\n\
         [dependencies]\nrankpool = {{ path = {crate_root:?}, default-features = false }}\n",
    );
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("it can be written");
    std::fs::copy(crate_root.join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("the same dependencies");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--color=never"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail"))
        .env("CARGO_TERM_COLOR", "never")
        .output()
        .expect("cargo can be started");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn functions_that_cannot_cross_ranks_do_not_compile_and_the_message_names_map_with() {
    // One program after another: they share what is built of the library.
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
