//! Bars outbound calls by country. Only the country code of the *business* number counts, not the
//! user's. Inbound calls are never barred.

use model::{Country, E164, Origin};

/// Territories that are barred together with the United States.
const US_TERRITORIES: [&str; 5] = ["PR", "VI", "GU", "AS", "MP"];

/// Returns the barred country of this number, or `None` if the list does not bar it.
///
/// A `+1` number with an unknown area code is barred if any `+1` country is.
pub fn barred(number: &E164, list: &[Country]) -> Option<Barred> {
    match Origin::of(number) {
        Origin::Country(country) => {
            let of_us = US_TERRITORIES.contains(&country.as_str()) && list.contains(&Country::US);
            (of_us || list.contains(&country)).then_some(Barred(Some(country)))
        }
        Origin::NorthAmerica => list.iter().any(Country::is_north_american).then_some(Barred(None)),
        Origin::Unassigned => None,
    }
}

/// A barred country. `None` is a `+1` area code that can't be assigned to a country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barred(pub Option<Country>);

impl std::fmt::Display for Barred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(country) => write!(f, "numbers of {country} may not place calls"),
            None => f.write_str("+1 numbers with an unknown area code may not place calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Barred, barred};
    use crate::admission::settings::Permissions;
    use model::{Country, E164};

    #[test]
    fn l18_six_countries_are_barred_by_default() {
        let list = Permissions::default().barred_countries;
        let is = |digits: &str| barred(&E164::parse(digits).unwrap(), &list).is_some();
        for digits in [
            "12125550123",
            "14165550123",
            "905321234567",
            "201001234567",
            "2348012345678",
            "84912345678",
            // Territories of the United States.
            "17875550123",
            "19395550123",
            "13405550123",
            "16715550123",
            "16845550123",
            "16705550123",
            // Unassigned area codes.
            "19995550123",
            "18005550123",
            "15555550123",
        ] {
            assert!(is(digits), "{digits}");
        }
        for area in [
            "242", "246", "264", "268", "284", "345", "441", "473", "649", "658", "664", "721",
            "758", "767", "784", "809", "829", "849", "868", "869", "876",
        ] {
            assert!(!is(&format!("1{area}5550123")), "{area}");
        }
        for digits in [
            "918035737458",
            "5511951230001",
            "447700900123",
            "21312345678",
            "2491234567",
            "8512345678",
        ] {
            assert!(!is(digits), "{digits}");
        }
    }

    #[test]
    fn l18_a_configured_list_replaces_the_default() {
        let country = |code: &str| Country::parse(code).unwrap();
        let is = |digits: &str, list: &[&str]| {
            let list: Vec<_> = list.iter().map(|code| country(code)).collect();
            barred(&E164::parse(digits).unwrap(), &list)
        };
        assert_eq!(is("12125550123", &[]), None);
        assert_eq!(is("12125550123", &["CA"]), None);
        assert_eq!(is("14165550123", &["CA"]), Some(Barred(Some(Country::CA))));
        assert_eq!(is("17875550123", &["CA"]), None);
        assert_eq!(is("17875550123", &["PR"]), Some(Barred(Some(country("PR")))));
        assert_eq!(is("12125550123", &["PR"]), None);
        assert_eq!(is("19995550123", &["CA"]), Some(Barred(None)));
        assert_eq!(is("19995550123", &["TR"]), None);
        assert_eq!(is("918035737458", &["IN"]), Some(Barred(Some(country("IN")))));
        assert_eq!(is("79161234567", &["KZ"]), None);
    }
}
