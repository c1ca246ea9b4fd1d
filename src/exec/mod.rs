//! External processes: how commands are started, watched and ended on a rank.

#[cfg_attr(not(test), expect(dead_code, reason = "the batch program does not call it yet"))]
pub(crate) mod python;
#[cfg_attr(not(test), expect(dead_code, reason = "the batch program does not call it yet"))]
pub(crate) mod worker;
