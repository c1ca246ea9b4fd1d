//! The behaviour that users of futures pools rely on, one sentence a test, over the local transport: ranks are threads of this
//! process, so that jobs can use the statics of the test that runs them.

mod handles;
mod initialisation;
#[cfg(feature = "program")]
mod journal;
mod limits;
mod maps;
mod nested;
mod ranks;
mod shutdown;
mod support;
mod tidy;
mod useful_time;
mod values;
mod variants;
mod waiting;
