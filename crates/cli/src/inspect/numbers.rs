//! Large numbers as people read them.

/// As model cards write it: 1T, 32B, 1.5B.
pub(super) fn short(count: u64) -> String {
    let (unit, name) =
        [(1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1000, "K"), (1, "")]
            .into_iter()
            .find(|(unit, _)| count >= *unit)
            .unwrap_or((1, ""));
    let value = count as f64 / unit as f64;
    let digits = if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{}{name}", digits.trim_end_matches(".0"))
}

/// 163840 is 160K.
pub(super) fn kibi(count: usize) -> String {
    if count > 0 && count.is_multiple_of(1024) {
        format!("{}K ({})", count / 1024, grouped(count as u64))
    } else {
        grouped(count as u64)
    }
}

/// 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 33.0 GB (32,987,654,321).
pub(super) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name} ({})", count as f64 / unit as f64, grouped(count)),
        None => format!("{count} bytes"),
    }
}
