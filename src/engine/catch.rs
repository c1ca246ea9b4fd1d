//! Runs user code and turns a panic in it into data.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The number of nested calls of [`catch`] on this thread, and the location of the last panic in them.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether `LAST_PANIC` is of the code that runs. This is cheaper to clear for every job.
    static HAS_PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A panic of user code, as data.
#[derive(Debug)]
pub(crate) struct Panic {
    pub message: String,
    pub location: Option<String>,
}

/// Runs user code. A panic in it is returned as data and is not printed.
pub(crate) fn catch<R>(code: impl FnOnce() -> R) -> Result<R, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() > 0 {
                LAST_PANIC.set(info.location().map(ToString::to_string));
                HAS_PANICKED.set(true);
            } else {
                earlier(info);
            }
        }));
    });
    CATCHING.set(CATCHING.get() + 1);
    HAS_PANICKED.set(false);
    let result = panic::catch_unwind(AssertUnwindSafe(code));
    let result = result.map_err(|payload| {
        let message = panic_message(&*payload);
        let location = if HAS_PANICKED.get() { LAST_PANIC.take() } else { None };
        // The payload is the panicking code's own value, and its drop may panic again.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Panic { message, location }
    });
    CATCHING.set(CATCHING.get() - 1);
    result
}

/// Returns the message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_string()
    }
}
