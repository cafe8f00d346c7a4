//! Units of length, mass, volume, time and temperature, by the names that people give them.

/// Names, what one of them is in the unit of the first row of its group, and the group.
const UNITS: [(&[&str], f64, Group); 24] = [
    (&["meters", "meter", "metres", "m"], 1.0, Group::Length),
    (&["kilometers", "kilometer", "kilometres", "km"], 1000.0, Group::Length),
    (&["centimeters", "centimeter", "cm"], 0.01, Group::Length),
    (&["millimeters", "millimeter", "mm"], 0.001, Group::Length),
    (&["miles", "mile", "mi"], 1609.344, Group::Length),
    (&["yards", "yard", "yd"], 0.9144, Group::Length),
    (&["feet", "foot", "ft"], 0.3048, Group::Length),
    (&["inches", "inch"], 0.0254, Group::Length),
    (&["kilograms", "kilogram", "kilos", "kg"], 1.0, Group::Mass),
    (&["grams", "gram", "g"], 0.001, Group::Mass),
    (&["tons", "ton", "tonnes"], 1000.0, Group::Mass),
    (&["pounds", "pound", "lb", "lbs"], 0.453_592_37, Group::Mass),
    (&["ounces", "ounce", "oz"], 0.028_349_523_125, Group::Mass),
    (&["liters", "liter", "litres", "l"], 1.0, Group::Volume),
    (&["milliliters", "milliliter", "ml"], 0.001, Group::Volume),
    (&["gallons", "gallon"], 3.785_411_784, Group::Volume),
    (&["pints", "pint"], 0.473_176_473, Group::Volume),
    (&["cups", "cup"], 0.236_588_236_5, Group::Volume),
    (&["hours", "hour", "h"], 3600.0, Group::Time),
    (&["minutes", "minute", "min"], 60.0, Group::Time),
    (&["seconds", "second", "s"], 1.0, Group::Time),
    (&["days", "day"], 86400.0, Group::Time),
    (&["weeks", "week"], 604_800.0, Group::Time),
    (&["kelvin", "k"], 1.0, Group::Temperature),
];

#[derive(Clone, Copy, PartialEq)]
enum Group {
    Length,
    Mass,
    Volume,
    Time,
    Temperature,
}

/// The value in another unit.
pub(super) fn convert(value: f64, from: &str, to: &str) -> Result<f64, &'static str> {
    let ((from, from_zero, group), (to, to_zero, other)) = (unit(from)?, unit(to)?);
    if group != other {
        return Err("invalid argument");
    }
    Ok((value * from + from_zero - to_zero) / to)
}

/// What one of it is, where its zero lies, and its group.
fn unit(name: &str) -> Result<(f64, f64, Group), &'static str> {
    let name = name.trim().to_lowercase();
    match name.as_str() {
        "celsius" => return Ok((1.0, 273.15, Group::Temperature)),
        "fahrenheit" => return Ok((5.0 / 9.0, 273.15 - 32.0 * 5.0 / 9.0, Group::Temperature)),
        _ => {}
    }
    let found = UNITS.iter().find(|(names, _, _)| names.contains(&name.as_str()));
    found.map(|(_, one, group)| (*one, 0.0, *group)).ok_or("unknown name")
}

#[cfg(test)]
mod tests {
    use super::convert;

    #[test]
    fn conversions_go_both_ways_and_never_between_groups() {
        for (value, from, to, wanted) in [
            (1.0, "miles", "km", 1.609344),
            (100.0, "Celsius", "fahrenheit", 212.0),
            (-40.0, "fahrenheit", "celsius", -40.0),
            (2.0, "hours", "minutes", 120.0),
            (1.0, "kg", "pounds", 2.2046226),
        ] {
            let there = convert(value, from, to).unwrap();
            assert!((there - wanted).abs() < 1e-6, "{value} {from} = {there} {to}");
            assert!((convert(there, to, from).unwrap() - value).abs() < 1e-9);
        }
        assert_eq!(convert(1.0, "miles", "hours"), Err("invalid argument"));
        assert_eq!(convert(1.0, "parsecs", "miles"), Err("unknown name"));
    }
}
