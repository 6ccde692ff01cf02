//! English words for amounts of money and for units.

use super::number::{self, Number, NumberStyle};

/// A currency: its signs or codes, its names, the names of its hundredth, and whether amounts are
/// read in lakh and crore.
struct Currency {
    signs: &'static [&'static str],
    name: [&'static str; 2],
    cent: Option<[&'static str; 2]>,
    indian: bool,
}

const CURRENCIES: &[Currency] = &[
    Currency {
        signs: &["US$", "$", "USD"],
        name: ["dollar", "dollars"],
        cent: Some(["cent", "cents"]),
        indian: false,
    },
    Currency {
        signs: &["₹", "INR", "Rs.", "Rs"],
        name: ["rupee", "rupees"],
        cent: Some(["paisa", "paise"]),
        indian: true,
    },
    Currency {
        signs: &["€", "EUR"],
        name: ["euro", "euros"],
        cent: Some(["cent", "cents"]),
        indian: false,
    },
    Currency {
        signs: &["£", "GBP"],
        name: ["pound", "pounds"],
        cent: Some(["penny", "pence"]),
        indian: false,
    },
    Currency { signs: &["¥", "JPY"], name: ["yen", "yen"], cent: None, indian: false },
    Currency {
        signs: &["AED"],
        name: ["dirham", "dirhams"],
        cent: Some(["fils", "fils"]),
        indian: false,
    },
    Currency {
        signs: &["BRL", "R$"],
        name: ["real", "reais"],
        cent: Some(["centavo", "centavos"]),
        indian: false,
    },
];

/// Magnitudes that follow a number, as written and as read.
const MAGNITUDES: &[(&str, &str)] = &[
    ("hundred", "hundred"),
    ("thousand", "thousand"),
    ("million", "million"),
    ("billion", "billion"),
    ("trillion", "trillion"),
    ("lakh", "lakh"),
    ("lakhs", "lakh"),
    ("crore", "crore"),
    ("crores", "crore"),
    ("k", "thousand"),
    ("K", "thousand"),
    ("M", "million"),
    ("mn", "million"),
    ("bn", "billion"),
    ("cr", "crore"),
    ("Cr", "crore"),
];

/// Returns the word for a magnitude, or `None` if the text is not one.
pub(super) fn magnitude(text: &str) -> Option<&'static str> {
    MAGNITUDES.iter().find(|(written, _)| *written == text).map(|(_, word)| *word)
}

/// Returns `true` if the text is a sign or code of a currency without an amount: `₹`, `Rs`, `USD`.
pub(super) fn is_currency(text: &str) -> bool {
    CURRENCIES.iter().any(|currency| currency.signs.contains(&text))
}

/// Returns the sign of a currency before an amount, or `None` if there is none.
pub(super) fn leading_sign(text: &str) -> Option<&'static str> {
    let mut signs = CURRENCIES.iter().flat_map(|currency| currency.signs);
    signs.find(|sign| text.starts_with(**sign)).copied()
}

/// Reads an amount with its sign before or after it: `$5.50`, `-₹1,25,000`, `20€`, `$5k`.
/// `following` is a magnitude in the next word, if there is one. Returns `None` for other text.
pub(super) fn money(text: &str, following: Option<&str>, style: NumberStyle) -> Option<String> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (currency, amount) = CURRENCIES.iter().find_map(|currency| {
        currency.signs.iter().find_map(|sign| {
            let amount = text.strip_prefix(sign).or_else(|| text.strip_suffix(sign))?;
            (!amount.is_empty()).then_some((currency, amount.trim_matches(' ')))
        })
    })?;
    let (amount, attached) = split_suffix(amount);
    let amount = amount.strip_suffix("/-").unwrap_or(amount);
    let attached = match attached {
        "" => None,
        "L" if currency.indian => Some("lakh"),
        "m" => Some("million"),
        "B" => Some("billion"),
        suffix => Some(magnitude(suffix)?),
    };
    let amount = &european_grouping(amount).unwrap_or_else(|| amount.to_owned());
    let number = Number::parse(amount).filter(|number| !number.negative)?;
    let style = NumberStyle { indian: style.indian || currency.indian, ..style };
    let minus = if negative { "minus " } else { "" };
    let [one, many] = currency.name;
    if let Some(magnitude) = attached.or(following) {
        return Some(format!("{minus}{} {magnitude} {many}", number.words(style)));
    }
    let Some([cent, cents]) = currency.cent else {
        return Some(format!("{minus}{} {many}", number.words(style)));
    };
    let hundredths = match number.fraction {
        None => Some(0),
        Some(digits) => match digits.len() {
            1 => digits.parse::<u64>().ok().map(|n| n * 10),
            2 => digits.parse().ok(),
            _ => None,
        },
    };
    let Some(hundredths) = hundredths else {
        return Some(format!("{minus}{} {many}", number.words(style)));
    };
    let whole = Number { fraction: None, ..number };
    let name = if whole.is_one() { one } else { many };
    let cents = if hundredths == 1 { cent } else { cents };
    let small = number::cardinal(hundredths, style);
    Some(match (whole.integer, hundredths) {
        (_, 0) => format!("{minus}{} {name}", whole.words(style)),
        (0, _) => format!("{minus}{small} {cents}"),
        _ => format!("{minus}{} {name} and {small} {cents}", whole.words(style)),
    })
}

/// Converts `1.299,50` to `1299.50`. Returns `None` for other text.
fn european_grouping(amount: &str) -> Option<String> {
    let (whole, cents) = amount.split_once(',')?;
    let has_cents = cents.len() == 2 && number::is_digits(cents);
    let mut groups = whole.split('.');
    let first = groups.next().filter(|first| first.len() <= 3 && number::is_digits(first))?;
    let rest: Vec<&str> = groups.collect();
    let all_grouped = rest.iter().all(|group| group.len() == 3 && number::is_digits(group));
    (has_cents && all_grouped).then(|| format!("{first}{}.{cents}", rest.concat()))
}

/// The units as written, in the singular, and in the plural.
const UNITS: &[(&str, &str, &str)] = &[
    ("%", "percent", "percent"),
    ("°C", "degree Celsius", "degrees Celsius"),
    ("°F", "degree Fahrenheit", "degrees Fahrenheit"),
    ("°", "degree", "degrees"),
    ("km/h", "kilometre per hour", "kilometres per hour"),
    ("kmph", "kilometre per hour", "kilometres per hour"),
    ("mph", "mile per hour", "miles per hour"),
    ("km", "kilometre", "kilometres"),
    ("m", "metre", "metres"),
    ("cm", "centimetre", "centimetres"),
    ("mm", "millimetre", "millimetres"),
    ("mi", "mile", "miles"),
    ("ft", "foot", "feet"),
    ("yd", "yard", "yards"),
    ("kg", "kilogram", "kilograms"),
    ("kgs", "kilogram", "kilograms"),
    ("g", "gram", "grams"),
    ("mg", "milligram", "milligrams"),
    ("lb", "pound", "pounds"),
    ("lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("l", "litre", "litres"),
    ("L", "litre", "litres"),
    ("ml", "millilitre", "millilitres"),
    ("min", "minute", "minutes"),
    ("mins", "minute", "minutes"),
    ("h", "hour", "hours"),
    ("hr", "hour", "hours"),
    ("hrs", "hour", "hours"),
    ("sec", "second", "seconds"),
    ("secs", "second", "seconds"),
    ("s", "second", "seconds"),
    ("ms", "millisecond", "milliseconds"),
    ("KB", "kilobyte", "kilobytes"),
    ("MB", "megabyte", "megabytes"),
    ("GB", "gigabyte", "gigabytes"),
    ("TB", "terabyte", "terabytes"),
    ("Mbps", "megabit per second", "megabits per second"),
    ("Gbps", "gigabit per second", "gigabits per second"),
    ("Hz", "hertz", "hertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("MHz", "megahertz", "megahertz"),
    ("GHz", "gigahertz", "gigahertz"),
    ("kW", "kilowatt", "kilowatts"),
    ("kWh", "kilowatt hour", "kilowatt hours"),
    ("sqft", "square foot", "square feet"),
];

/// Splits `10km` into the number and the rest.
fn split_suffix(text: &str) -> (&str, &str) {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | '/');
    let end = text.find(|c| !is_number(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Reads a number with its unit: `10km`, `5%`, `-3°C`. Returns `None` for other text.
pub(super) fn with_unit(text: &str, style: NumberStyle) -> Option<String> {
    let (number, unit) = split_suffix(text);
    if unit.is_empty() {
        return None;
    }
    // "4K" is a resolution, and "10K" a distance.
    let is_magnitude = unit != "K" || number.contains('.');
    if let Some(magnitude) = magnitude(unit).filter(|_| is_magnitude) {
        return Some(format!("{} {magnitude}", Number::parse(number)?.words(style)));
    }
    unit_words(number, unit, style)
}

/// Reads a number and the unit of an area: `3 sq ft`. Returns `None` for other text.
pub(super) fn square_words(number: &str, unit: &str, style: NumberStyle) -> Option<String> {
    let words = unit_words(number, unit, style)?;
    let (number, name) = words.rsplit_once(' ')?;
    Some(format!("{number} square {name}"))
}

/// Reads a number and the unit in the following word. Returns `None` for other text.
pub(super) fn unit_words(number: &str, unit: &str, style: NumberStyle) -> Option<String> {
    let (_, one, many) = UNITS.iter().find(|(written, ..)| *written == unit)?;
    let number = Number::parse(number)?;
    let name = if number.is_one() { one } else { many };
    Some(format!("{} {name}", number.words(style)))
}
