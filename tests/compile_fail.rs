//! Programs that must not compile do not, and the message says what to do. Some of the checks run when the compiler generates
//! code, not when it checks types, so small programs are compiled against this build of the library.

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

/// Returns the path of the library that this test was built with: the newest one beside it.
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

/// Compiles a driver; returns the compiler's output and whether it succeeded.
fn compile(name: &str, driver: &str) -> (bool, String) {
    // Code is generated but not linked: the libraries to link with may be elsewhere.
    compile_to("obj", name, driver)
}

/// Checks a driver as `cargo check` does, without generating code.
fn check(name: &str, driver: &str) -> (bool, String) {
    compile_to("metadata", name, driver)
}

fn compile_to(product: &str, name: &str, driver: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("there is room for a small program");
    let program =
        format!("fn main() {{ rankpool::Launch::new().local(1).threads(1).run(|pool| {{ {driver} Ok(()) }}); }}");
    let source = folder.path().join(format!("{name}.rs"));
    std::fs::write(&source, program).expect("it can be written");
    let library = library();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=bin", "--color=never"])
        .arg(format!("--emit={product}"))
        .arg("--out-dir")
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
fn captures_that_types_show_are_refused_by_a_check_at_the_user_s_line_and_the_message_names_map_with() {
    let (passes, said) = check("plain", "assert_eq!(pool.apply(|x: u32| x + 1, 1), Ok(2));");
    assert!(passes, "a program that does nothing wrong must pass, or this test says nothing:\n{said}");
    let text = "let y = String::new();\n";
    for (name, lines) in [
        ("map", "pool.map(\nmove |x: usize| x + y.len(), 0..3).for_each(drop);"),
        ("submit", "let _ = pool.submit(\nmove |x: usize| x + y.len(), 3);"),
        ("apply", "let _ = pool.apply(\nmove |x: usize| x + y.len(), 3);"),
        ("starmap", "pool.starmap(\nmove |x: usize, z: usize| x + z + y.len(), [(1, 2)]).for_each(drop);"),
        ("map_with", "pool.map_with(1, 0..3, \nmove |c: &usize, x: usize| x + c + y.len()).for_each(drop);"),
        ("map_init", "pool.map_init(\nmove || y.len(), 0..3, |y, x: usize| x + *y).for_each(drop);"),
        ("map_ref", "pool.map_ref(\nmove |x: &usize| x + y.len(), &[1]).for_each(drop);"),
        ("submit_with", "let _ = pool.submit_with(1, \nmove |c: &usize, x: usize| x + c + y.len(), 1);"),
        ("submit_star", "let _ = pool.submit_star(\nmove |x: usize, z: usize| x + z + y.len(), (1, 2));"),
    ] {
        let (passes, said) = check(name, &format!("{text}{lines}"));
        assert!(!passes, "{name} passes, but {lines}");
        let first = said.split("error").nth(1).unwrap_or_default();
        assert!(
            first.contains("cannot cross ranks") && first.contains("map_with"),
            "the message does not help:\n{said}"
        );
        assert!(first.contains(&format!("{name}.rs:3:")), "not the line of the function:\n{said}");
    }
}

#[test]
fn functions_that_are_generic_cross_by_the_bounds_of_the_standard_library() {
    let driver = "
        fn twice<F: Fn(u32) -> u32 + Copy + Send + Sync + 'static>(pool: &rankpool::Pool, f: F) -> u32 {
            pool.map(f, 0..2).map(Result::unwrap).sum()
        }
        assert_eq!(twice(pool, |x| x + 1), 3);";
    let (built, said) = compile("generic", driver);
    assert!(built, "{said}");
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
