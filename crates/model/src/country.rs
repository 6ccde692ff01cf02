//! The country of a phone number, from its calling code (annex to ITU-T E.164).
//!
//! Some twenty countries share `+1` and are distinguished by area code (North American Numbering
//! Plan). A few other calling codes are shared too and are distinguished by the digits that follow.
//! Which countries may be called is decided in the `admission` module.

use std::fmt;

use super::E164;

/// A country or territory with distinguishable phone numbers, identified by its ISO 3166 alpha-2
/// code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// Where a phone number belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Country(Country),
    /// `+1` with an area code that is shared by several countries or unknown.
    NorthAmerica,
    /// A calling code that belongs to no country: satellite networks, shared services, unused
    /// codes.
    Unassigned,
}

impl Country {
    pub const US: Self = Self(*b"US");
    pub const CA: Self = Self(*b"CA");

    /// Parses an ISO 3166 alpha-2 code in capital letters.
    ///
    /// # Errors
    ///
    /// Fails if the text is not such a code, or if the country's numbers cannot be distinguished
    /// from those of another country.
    pub fn parse(code: &str) -> Result<Self, CountryError> {
        let letters = <[u8; 2]>::try_from(code.as_bytes())
            .ok()
            .filter(|l| l.iter().all(u8::is_ascii_uppercase));
        let country = Self(letters.ok_or(CountryError::InvalidCode)?);
        let in_plan = NANP.iter().any(|(plan, _)| *plan == code);
        if in_plan || PREFIXES.iter().any(|(_, of)| *of == code) {
            return Ok(country);
        }
        let shared = SHARED.iter().find(|(shared, _)| *shared == code).map(|(_, with)| *with);
        Err(shared.map_or(CountryError::Unknown, CountryError::SharedCallingCode))
    }

    /// The two-letter code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The English name of the country.
    pub fn name(&self) -> &'static str {
        let names = super::country_names::NAMES;
        let at = names.binary_search_by_key(&self.as_str(), |(code, _)| *code).ok();
        at.and_then(|at| names.get(at)).map_or("", |(_, name)| *name)
    }

    fn from_code(code: &str) -> Option<Self> {
        code.as_bytes().try_into().ok().map(Self)
    }

    /// Whether the country's numbers begin with `+1`.
    pub fn is_north_american(&self) -> bool {
        NANP.iter().any(|(code, _)| *code == self.as_str())
    }
}

impl Origin {
    /// Determines the origin of a number from its first digits.
    pub fn of(number: &E164) -> Self {
        let digits = number.as_str();
        if let Some(rest) = digits.strip_prefix('1') {
            return rest
                .get(..3)
                .and_then(country_of_area)
                .map_or(Self::NorthAmerica, Self::Country);
        }
        // The longest prefix wins: 77 is Kazakhstan, other numbers in 7 are Russia.
        let found = PREFIXES
            .iter()
            .filter(|(prefix, _)| digits.starts_with(prefix))
            .max_by_key(|(p, _)| p.len());
        found.and_then(|(_, code)| Country::from_code(code)).map_or(Self::Unassigned, Self::Country)
    }

    /// Returns the country, or `None` if the number does not belong to exactly one country.
    pub fn country(self) -> Option<Country> {
        match self {
            Self::Country(country) => Some(country),
            Self::NorthAmerica | Self::Unassigned => None,
        }
    }
}

fn country_of_area(area: &str) -> Option<Country> {
    let contains_area = |areas: &str| areas.split(' ').any(|one| one == area);
    NANP.iter()
        .find(|(_, areas)| contains_area(areas))
        .and_then(|(code, _)| Country::from_code(code))
}

/// Why [`Country::parse`] failed. The messages continue a sentence that begins with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountryError {
    #[error("is not two capital letters")]
    InvalidCode,
    #[error("is not a country with its own telephone numbers")]
    Unknown,
    /// Contains the country that has the same calling code.
    #[error("shares its calling code with {0}, and their numbers cannot be distinguished")]
    SharedCallingCode(&'static str),
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Pairs of countries that share a calling code and a number format. The second one stands for
/// both.
const SHARED: &[(&str, &str)] = &[
    ("BL", "GP"),
    ("MF", "GP"),
    ("BV", "NO"),
    ("SJ", "NO"),
    ("HM", "AU"),
    ("CC", "AU"),
    ("CX", "AU"),
    ("GS", "FK"),
    ("PN", "NZ"),
    ("EH", "MA"),
    ("VA", "IT"),
    ("AX", "FI"),
    ("YT", "RE"),
    ("UM", "US"),
    ("GG", "GB"),
    ("JE", "GB"),
    ("IM", "GB"),
    ("AQ", "NF"),
];

/// Area codes of `+1` by country. Toll-free, personal and other shared area codes are not listed.
const NANP: &[(&str, &str)] = &[
    ("AG", "268"),
    ("AI", "264"),
    ("AS", "684"),
    ("BB", "246"),
    ("BM", "441"),
    ("BS", "242"),
    (
        "CA",
        "204 226 236 249 250 257 263 289 306 343 354 365 367 368 382 387 403 416 418 428 431 437 438 450 460 468 474 \
         506 514 519 537 548 568 579 581 584 587 600 604 613 622 639 647 672 683 705 709 742 753 778 780 782 807 819 \
         825 851 867 873 879 902 905 942",
    ),
    ("DM", "767"),
    ("DO", "809 829 849"),
    ("GD", "473"),
    ("GU", "671"),
    ("JM", "658 876"),
    ("KN", "869"),
    ("KY", "345"),
    ("LC", "758"),
    ("MP", "670"),
    ("MS", "664"),
    ("PR", "787 939"),
    ("SX", "721"),
    ("TC", "649"),
    ("TT", "868"),
    (
        "US",
        "201 202 203 205 206 207 208 209 210 212 213 214 215 216 217 218 219 220 223 224 225 227 228 229 231 234 235 \
         239 240 248 251 252 253 254 256 260 262 267 269 270 272 274 276 279 281 283 301 302 303 304 305 307 308 309 \
         310 312 313 314 315 316 317 318 319 320 321 323 324 325 326 327 329 330 331 332 334 336 337 339 341 346 347 \
         350 351 352 353 357 360 361 363 364 369 380 385 386 401 402 404 405 406 407 408 409 410 412 413 414 415 417 \
         419 423 424 425 430 432 434 435 436 440 442 443 445 447 448 457 458 463 464 469 470 471 472 475 478 479 480 \
         483 484 501 502 503 504 505 507 508 509 510 512 513 515 516 517 518 520 530 531 534 539 540 541 551 557 559 \
         561 562 563 564 567 570 571 572 573 574 575 580 582 585 586 601 602 603 605 606 607 608 609 610 612 614 615 \
         616 617 618 619 620 621 623 624 626 628 629 630 631 636 640 641 645 646 650 651 656 657 659 660 661 662 667 \
         669 678 679 680 681 682 686 689 701 702 703 704 706 707 708 710 712 713 714 715 716 717 718 719 720 724 725 \
         726 727 728 729 730 731 732 734 737 738 740 743 747 748 754 757 760 762 763 765 769 770 771 772 773 774 775 \
         779 781 785 786 801 802 803 804 805 806 808 810 812 813 814 815 816 817 818 820 821 826 828 830 831 832 835 \
         837 838 839 840 843 845 847 848 850 854 856 857 858 859 860 861 862 863 864 865 870 872 878 901 903 904 906 \
         907 908 909 910 912 913 914 915 916 917 918 919 920 924 925 928 929 930 931 934 936 937 938 940 941 943 945 \
         947 948 949 951 952 954 956 959 970 971 972 973 975 978 979 980 983 984 985 986 989",
    ),
    ("VC", "784"),
    ("VG", "284"),
    ("VI", "340"),
];

/// Calling codes other than `+1`, with longer prefixes where countries share one.
const PREFIXES: &[(&str, &str)] = &[
    ("7", "RU"),
    ("76", "KZ"),
    ("77", "KZ"),
    ("20", "EG"),
    ("211", "SS"),
    ("212", "MA"),
    ("213", "DZ"),
    ("216", "TN"),
    ("218", "LY"),
    ("220", "GM"),
    ("221", "SN"),
    ("222", "MR"),
    ("223", "ML"),
    ("224", "GN"),
    ("225", "CI"),
    ("226", "BF"),
    ("227", "NE"),
    ("228", "TG"),
    ("229", "BJ"),
    ("230", "MU"),
    ("231", "LR"),
    ("232", "SL"),
    ("233", "GH"),
    ("234", "NG"),
    ("235", "TD"),
    ("236", "CF"),
    ("237", "CM"),
    ("238", "CV"),
    ("239", "ST"),
    ("240", "GQ"),
    ("241", "GA"),
    ("242", "CG"),
    ("243", "CD"),
    ("244", "AO"),
    ("245", "GW"),
    ("246", "IO"),
    ("247", "SH"),
    ("248", "SC"),
    ("249", "SD"),
    ("250", "RW"),
    ("251", "ET"),
    ("252", "SO"),
    ("253", "DJ"),
    ("254", "KE"),
    ("255", "TZ"),
    ("256", "UG"),
    ("257", "BI"),
    ("258", "MZ"),
    ("260", "ZM"),
    ("261", "MG"),
    ("262", "RE"),
    ("263", "ZW"),
    ("264", "NA"),
    ("265", "MW"),
    ("266", "LS"),
    ("267", "BW"),
    ("268", "SZ"),
    ("269", "KM"),
    ("27", "ZA"),
    ("290", "SH"),
    ("291", "ER"),
    ("297", "AW"),
    ("298", "FO"),
    ("299", "GL"),
    ("30", "GR"),
    ("31", "NL"),
    ("32", "BE"),
    ("33", "FR"),
    ("34", "ES"),
    ("350", "GI"),
    ("351", "PT"),
    ("352", "LU"),
    ("353", "IE"),
    ("354", "IS"),
    ("355", "AL"),
    ("356", "MT"),
    ("357", "CY"),
    ("358", "FI"),
    ("359", "BG"),
    ("36", "HU"),
    ("370", "LT"),
    ("371", "LV"),
    ("372", "EE"),
    ("373", "MD"),
    ("374", "AM"),
    ("375", "BY"),
    ("376", "AD"),
    ("377", "MC"),
    ("378", "SM"),
    ("380", "UA"),
    ("381", "RS"),
    ("382", "ME"),
    ("383", "XK"),
    ("385", "HR"),
    ("386", "SI"),
    ("387", "BA"),
    ("389", "MK"),
    ("39", "IT"),
    ("40", "RO"),
    ("41", "CH"),
    ("420", "CZ"),
    ("421", "SK"),
    ("423", "LI"),
    ("43", "AT"),
    ("44", "GB"),
    ("45", "DK"),
    ("46", "SE"),
    ("47", "NO"),
    ("48", "PL"),
    ("49", "DE"),
    ("500", "FK"),
    ("501", "BZ"),
    ("502", "GT"),
    ("503", "SV"),
    ("504", "HN"),
    ("505", "NI"),
    ("506", "CR"),
    ("507", "PA"),
    ("508", "PM"),
    ("509", "HT"),
    ("51", "PE"),
    ("52", "MX"),
    ("53", "CU"),
    ("54", "AR"),
    ("55", "BR"),
    ("56", "CL"),
    ("57", "CO"),
    ("58", "VE"),
    ("590", "GP"),
    ("591", "BO"),
    ("592", "GY"),
    ("593", "EC"),
    ("594", "GF"),
    ("595", "PY"),
    ("596", "MQ"),
    ("597", "SR"),
    ("598", "UY"),
    ("5993", "BQ"),
    ("5994", "BQ"),
    ("5997", "BQ"),
    ("5999", "CW"),
    ("60", "MY"),
    ("61", "AU"),
    ("62", "ID"),
    ("63", "PH"),
    ("64", "NZ"),
    ("65", "SG"),
    ("66", "TH"),
    ("670", "TL"),
    ("672", "NF"),
    ("673", "BN"),
    ("674", "NR"),
    ("675", "PG"),
    ("676", "TO"),
    ("677", "SB"),
    ("678", "VU"),
    ("679", "FJ"),
    ("680", "PW"),
    ("681", "WF"),
    ("682", "CK"),
    ("683", "NU"),
    ("685", "WS"),
    ("686", "KI"),
    ("687", "NC"),
    ("688", "TV"),
    ("689", "PF"),
    ("690", "TK"),
    ("691", "FM"),
    ("692", "MH"),
    ("81", "JP"),
    ("82", "KR"),
    ("84", "VN"),
    ("850", "KP"),
    ("852", "HK"),
    ("853", "MO"),
    ("855", "KH"),
    ("856", "LA"),
    ("86", "CN"),
    ("880", "BD"),
    ("886", "TW"),
    ("90", "TR"),
    ("91", "IN"),
    ("92", "PK"),
    ("93", "AF"),
    ("94", "LK"),
    ("95", "MM"),
    ("960", "MV"),
    ("961", "LB"),
    ("962", "JO"),
    ("963", "SY"),
    ("964", "IQ"),
    ("965", "KW"),
    ("966", "SA"),
    ("967", "YE"),
    ("968", "OM"),
    ("970", "PS"),
    ("971", "AE"),
    ("972", "IL"),
    ("973", "BH"),
    ("974", "QA"),
    ("975", "BT"),
    ("976", "MN"),
    ("977", "NP"),
    ("98", "IR"),
    ("992", "TJ"),
    ("993", "TM"),
    ("994", "AZ"),
    ("995", "GE"),
    ("996", "KG"),
    ("998", "UZ"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn origin(digits: &str) -> Origin {
        Origin::of(&E164::parse(digits).unwrap())
    }

    #[test]
    fn finds_the_country_of_a_number() {
        let rows = [
            ("918035737458", "IN"),
            ("905321234567", "TR"),
            ("201001234567", "EG"),
            ("2348012345678", "NG"),
            ("84912345678", "VN"),
            ("13175551399", "US"),
            ("14165550123", "CA"),
            ("18765550123", "JM"),
            ("16585550123", "JM"),
            ("18095550123", "DO"),
            ("12425550123", "BS"),
            ("18685550123", "TT"),
            ("17875550123", "PR"),
            ("77012345678", "KZ"),
            ("79161234567", "RU"),
            ("59991234567", "CW"),
            ("21312345678", "DZ"),
            ("12135550123", "US"),
        ];
        for (digits, country) in rows {
            let expected = Origin::Country(Country::parse(country).unwrap());
            assert_eq!(origin(digits), expected, "{digits}");
        }
        for shared in ["18005550123", "15005550123", "19995550123", "10005550123", "12345"] {
            let known = matches!(origin(shared), Origin::Country(c) if c == Country::US);
            assert_eq!(known, shared == "12345", "{shared}");
        }
        assert_eq!(origin("88312345678"), Origin::Unassigned);
        assert_eq!(origin("87012345678"), Origin::Unassigned);
    }

    #[test]
    fn rejects_codes_without_their_own_numbers() {
        for good in ["US", "CA", "TR", "EG", "NG", "VN", "JM", "XK", "PR"] {
            assert_eq!(Country::parse(good).unwrap().as_str(), good);
        }
        for bad in ["us", "U", "USA", "", "1A", "ÄÖ"] {
            assert_eq!(Country::parse(bad), Err(CountryError::InvalidCode), "{bad}");
        }
        assert_eq!(Country::parse("ZZ"), Err(CountryError::Unknown));
        assert_eq!(Country::parse("UK"), Err(CountryError::Unknown));
        assert_eq!(Country::parse("GG"), Err(CountryError::SharedCallingCode("GB")));
    }

    #[test]
    fn tables_have_no_duplicate_area_or_prefix() {
        let mut seen = BTreeMap::new();
        for (country, areas) in NANP {
            for area in areas.split(' ') {
                assert!(
                    area.len() == 3
                        && area.bytes().all(|b| b.is_ascii_digit())
                        && area.as_bytes()[0] > b'1'
                );
                assert_eq!(seen.insert(area, country), None, "{area}");
            }
        }
        let mut prefixes = BTreeMap::new();
        for (prefix, country) in PREFIXES {
            assert_eq!(prefixes.insert(prefix, country), None, "{prefix}");
        }
        for (code, with) in SHARED {
            assert!(Country::parse(code).is_err() && Country::parse(with).is_ok(), "{code}");
        }
        assert!(Country::parse("JM").unwrap().is_north_american());
        assert!(!Country::parse("GB").unwrap().is_north_american());
    }
}
