//! Parses the values of options.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;
use std::time::Duration;

use crate::batch::MaxFailures;
use crate::input::{Linspace, linspace};
use crate::process::python::is_dotted;

/// `auto`, or a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Auto,
    Fixed(NonZeroU32),
}

impl FromStr for Chunk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Chunk::Auto),
            text => text.parse().map(Chunk::Fixed).map_err(|_| "neither `auto` nor a number from 1".into()),
        }
    }
}

impl Chunk {
    /// Returns the number of jobs for [`Map::chunk_size`](crate::Map::chunk_size), 0 for `auto`.
    pub(super) fn jobs(self) -> u32 {
        match self {
            Chunk::Auto => 0,
            Chunk::Fixed(jobs) => jobs.get(),
        }
    }
}

/// The name of a Python module; or, from a script's executor, a folder with modules, which begins and ends with a slash.
pub(super) fn module(text: &str) -> Result<String, String> {
    let is_folder = text.starts_with('/') && text.ends_with('/');
    if is_folder || is_dotted(text) {
        Ok(text.to_string())
    } else {
        Err("not the name of a module, such as numpy or package.module".into())
    }
}

/// `START:END:COUNT`, evenly spaced, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Widths {
    start: f64,
    end: f64,
    pub(super) count: u64,
}

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [start, end, count] = parts[..] else { return Err("not of the form START:END:COUNT".into()) };
        let width = |text: &str| match finite(text) {
            Ok(width) if width > 0.0 => Ok(width),
            _ => Err(format!("'{text}' is not a width: a number above 0")),
        };
        let (start, end) = (width(start)?, width(end)?);
        match count.trim().parse() {
            Ok(count) if count > 0 => Ok(Widths { start, end, count }),
            _ => Err(format!("'{count}' is not a count: a number from 1")),
        }
    }
}

impl Widths {
    pub(super) fn iter(self) -> Linspace {
        linspace(self.start, self.end, self.count)
    }
}

/// Coordinates with commas between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point(pub(super) Vec<f64>);

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let coordinates = text.split(',').map(finite).collect::<Result<_, _>>()?;
        Ok(Point(coordinates))
    }
}

fn finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("'{text}' is not a number")),
    }
}

/// The value of `--max-failures`: `10`, or a share of the jobs, `5%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Failures(pub(super) MaxFailures);

impl FromStr for Failures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a number nor a share from 0% to 100%");
        let most = match text.strip_suffix('%') {
            None => MaxFailures::Jobs(text.parse().map_err(|_| wrong())?),
            Some(share) => match finite(share) {
                Ok(share) if (0.0..=100.0).contains(&share) => MaxFailures::Share(share / 100.0),
                _ => return Err(wrong()),
            },
        };
        Ok(Failures(most))
    }
}

/// The value of `--time-limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The time limit of the allocation that the run is in.
    Auto,
    None,
    After(Duration),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Limit::Auto),
            "none" => Ok(Limit::None),
            text => positive_time(text).map(Limit::After).map_err(|error| format!("{error}; or `auto` or `none`")),
        }
    }
}

/// The value of `--job-mem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobMem {
    /// As much as a job needs: one that was killed for lack of memory is run again with fewer others beside it.
    Auto,
    /// A job that was killed for lack of memory has failed.
    None,
    /// This number of bytes; otherwise as `Auto`.
    Bytes(NonZeroU64),
}

impl FromStr for JobMem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(JobMem::Auto),
            "none" => Ok(JobMem::None),
            text => size(text).map(JobMem::Bytes),
        }
    }
}

impl JobMem {
    pub(super) fn bytes(self) -> Option<u64> {
        match self {
            JobMem::Auto | JobMem::None => None,
            JobMem::Bytes(bytes) => Some(bytes.get()),
        }
    }
}

/// Parses a number of bytes with its unit: K, M, G or T, of 1024 each, also as `MB` or `MiB`.
fn size(text: &str) -> Result<NonZeroU64, String> {
    let wrong = || format!("'{text}' is not a size: write 500M, 2G or 1.5GiB; or `auto` or `none`");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t"].iter().position(|name| *name == unit).ok_or_else(wrong)?;
    let bytes = finite(number).map_err(|_| wrong())? * f64::from(1u32 << 10).powi(power as i32);
    NonZeroU64::new(bytes as u64).ok_or_else(wrong)
}

/// Parses a number from 1 that fits the type.
pub(super) fn from_one<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a number from 1".into())
}

/// Parses a time in seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    duration(text, 1.0)
}

/// Parses a time with its unit, `1h 30m`, or in seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    if let Ok(time) = seconds(text) {
        return Ok(time);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let scale = match unit.trim() {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => {
            let wrong = |_| format!("'{text}' is not a time: write 10s, 1.5m, 2h or 1h30m");
            return humantime::parse_duration(text).map_err(wrong);
        }
    };
    duration(number, scale)
}

/// Parses a [`time`] above 0.
pub(super) fn positive_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("must be more than 0".into()),
        time => Ok(time),
    }
}

/// Parses a time in microseconds.
pub(super) fn micros(text: &str) -> Result<Duration, String> {
    duration(text, 1e-6)
}

fn duration(text: &str, unit: f64) -> Result<Duration, String> {
    let value = finite(text)?;
    Duration::try_from_secs_f64(value * unit).map_err(|_| "is negative, or too long".into())
}

/// Parses the address of a status page. A port alone is one of this host.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    match (text.parse::<u16>(), text.parse()) {
        (Ok(port), _) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        (Err(_), Ok(address)) => Ok(address),
        (Err(_), Err(_)) => {
            Err("neither a port, such as 9000, nor an address with a port, such as 0.0.0.0:9000 or [::]:9000".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_automatic_or_a_number_from_one() {
        assert_eq!("auto".parse(), Ok(Chunk::Auto));
        assert_eq!("7".parse::<Chunk>().map(Chunk::jobs), Ok(7));
        for wrong in ["0", "-1", "", "Auto", "1.5", "4294967296"] {
            assert_eq!(wrong.parse::<Chunk>(), Err("neither `auto` nor a number from 1".into()), "{wrong}");
        }
    }

    #[test]
    fn widths_have_two_ends_above_zero_and_a_count() {
        let widths: Widths = "1.0:1.2:3".parse().unwrap();
        assert_eq!(widths.iter().collect::<Vec<_>>(), [1.0, 1.1, 1.2]);
        assert_eq!("2:1:2".parse::<Widths>().unwrap().iter().collect::<Vec<_>>(), [2.0, 1.0]);
        for (wrong, message) in [
            ("1:2", "not of the form START:END:COUNT"),
            ("1:2:3:4", "not of the form START:END:COUNT"),
            ("0:2:3", "'0' is not a width: a number above 0"),
            ("1:-2:3", "'-2' is not a width: a number above 0"),
            ("1:inf:3", "'inf' is not a width: a number above 0"),
            ("1:2:0", "'0' is not a count: a number from 1"),
            ("1:2:x", "'x' is not a count: a number from 1"),
        ] {
            assert_eq!(wrong.parse::<Widths>(), Err(message.into()));
        }
    }

    #[test]
    fn a_point_has_finite_coordinates() {
        assert_eq!("0,-1.5, 2".parse(), Ok(Point(vec![0.0, -1.5, 2.0])));
        assert_eq!("0,".parse::<Point>(), Err("'' is not a number".into()));
        assert_eq!("nan".parse::<Point>(), Err("'nan' is not a number".into()));
    }

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("250ms", 250),
            ("0.25", 250),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "s", "ten", "-1s", "1 fortnight", "1.5.5s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_limit_is_a_time_or_a_word() {
        assert_eq!("auto".parse(), Ok(Limit::Auto));
        assert_eq!("none".parse(), Ok(Limit::None));
        assert_eq!("2m".parse(), Ok(Limit::After(Duration::from_secs(120))));
        for wrong in ["0", "-1s", "soon", ""] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_memory_of_a_job_is_a_size_or_a_word() {
        assert_eq!(("auto".parse(), "none".parse()), (Ok(JobMem::Auto), Ok(JobMem::None)));
        for (text, bytes) in [
            ("500M", 500 << 20),
            ("2G", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("3gb", 3 << 30),
            ("64 k", 64 << 10),
            ("1T", 1 << 40),
            ("4096", 4096),
            ("512B", 512),
        ] {
            assert_eq!(text.parse::<JobMem>().map(JobMem::bytes), Ok(Some(bytes)), "{text}");
        }
        for wrong in ["", "0", "0.0001", "-1G", "G", "2X", "1.5.5M", "much", "1Gi", "1e9"] {
            assert!(wrong.parse::<JobMem>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn failures_are_a_number_or_a_share() {
        assert_eq!("10".parse(), Ok(Failures(MaxFailures::Jobs(10))));
        assert_eq!("2.5%".parse(), Ok(Failures(MaxFailures::Share(0.025))));
        for wrong in ["", "%", "-1", "101%", "many", "1.5"] {
            assert!(wrong.parse::<Failures>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_not_negative() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(micros("100"), Ok(Duration::from_micros(100)));
        assert_eq!(micros("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("-1"), Err("is negative, or too long".into()));
        assert_eq!(seconds("1e30"), Err("is negative, or too long".into()));
        assert_eq!(seconds("long"), Err("'long' is not a number".into()));
    }
}
