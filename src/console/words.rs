//! Numbers with units as people read them: times, sizes, counts, and a time limit as Slurm writes it.

/// Formats a number with three significant digits, or as a whole number with groups of three digits.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    if value != 0.0 && value.abs() < 0.001 {
        return format!("{value:.1e}");
    }
    if value.abs() >= 100.0 || value == 0.0 {
        return count(value.round().abs() as u64).replace('\u{2212}', "-").to_string();
    }
    let digits = (2 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// Formats a whole number in groups of three digits.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digits.len() > 4 {
            // A narrow space that does not break the line.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Formats a count of a thing: `1 job`, `7 jobs`.
pub(crate) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// Formats a time: `12.3 ms`, `4 min 5 s`, `3 h 12 min`.
pub(crate) fn seconds(value: f64) -> String {
    let value = value.max(0.0);
    match value {
        _ if !value.is_finite() => "–".into(),
        0.0 => "0 s".into(),
        _ if value < 0.999_5e-6 => format!("{} ns", number(value * 1e9)),
        _ if value < 0.999_5e-3 => format!("{} µs", number(value * 1e6)),
        _ if value < 0.999_5 => format!("{} ms", number(value * 1e3)),
        _ if value < 99.95 => format!("{} s", number(value)),
        _ => long(value.round() as u64),
    }
}

/// Formats a time of more than a minute in its two greatest units.
fn long(whole: u64) -> String {
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let two = |great: u64, unit: &str, small: u64, of: &str| match small {
        0 => format!("{great} {unit}"),
        small => format!("{great} {unit} {small} {of}"),
    };
    match () {
        () if days > 0 => two(days, "d", hours, "h"),
        () if hours > 0 => two(hours, "h", minutes, "min"),
        () => two(minutes, "min", seconds, "s"),
    }
}

/// Formats a number of bytes in the unit that suits it.
pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = value.max(0.0);
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", number(value), UNITS[unit])
}

/// Formats a part of a whole: `12 %`; what is small or nearly everything keeps a digit.
pub(crate) fn percent(part: f64) -> String {
    let value = part * 100.0;
    if (value < 10.0 && value > 0.0) || (value > 99.0 && value < 100.0) {
        format!("{} %", number((value * 10.0).round() / 10.0))
    } else {
        format!("{} %", value.round())
    }
}

/// Formats a time limit as `--time` of Slurm takes it: hours, minutes and seconds, with days in front if there are any.
pub(crate) fn slurm_time(value: f64) -> String {
    let whole = value.max(0.0).ceil() as u64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    let time = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if days > 0 { format!("{days}-{time}") } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_suits_them() {
        for (value, text) in
            [(0.0, "0 s"), (5e-8, "50 ns"), (0.0123, "12.3 ms"), (1.0, "1 s"), (99.9, "99.9 s"), (245.0, "4 min 5 s")]
        {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(
            (seconds(11_520.0), seconds(180_000.0), seconds(3600.0)),
            ("3 h 12 min".into(), "2 d 2 h".into(), "1 h".into())
        );
        assert_eq!(
            (bytes(0.0), bytes(1536.0), bytes(1000.0 * 1024.0)),
            ("0 B".into(), "1.5 KiB".into(), "0.977 MiB".into())
        );
        assert_eq!(
            (number(0.125), number(1234.4), number(12_345.0)),
            ("0.125".into(), "1234".into(), "12\u{202f}345".into())
        );
        assert_eq!((number(f64::NAN), number(2e-5)), ("–".into(), "2.0e-5".into()));
        assert_eq!(
            (percent(0.5), percent(0.0123), percent(1.0), percent(0.996)),
            ("50 %".into(), "1.2 %".into(), "100 %".into(), "99.6 %".into())
        );
        assert_eq!((counted(1, "job"), counted(0, "job")), ("1 job".into(), "0 jobs".into()));
    }

    #[test]
    fn a_time_limit_is_what_slurm_reads() {
        assert_eq!(
            (slurm_time(59.2), slurm_time(5000.0), slurm_time(90_061.0)),
            ("00:01:00".into(), "01:23:20".into(), "1-01:01:01".into())
        );
    }
}
