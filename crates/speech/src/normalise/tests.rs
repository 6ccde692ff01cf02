//! Texts and how they are read.

use proptest::prelude::*;
use rstest::rstest;

use super::words;

#[rstest]
// Numbers.
#[case("Press 1 for sales.", "Press one for sales.")]
#[case("You are caller 23.", "You are caller twenty-three.")]
#[case("1,250,000 people", "one million two hundred fifty thousand people")]
#[case("1,25,000 people", "one lakh twenty-five thousand people")]
#[case("3.14", "three point one four")]
#[case("It is -5 outside", "It is minus five outside")]
#[case("007", "zero zero seven")]
#[case("2.5 million users", "two point five million users")]
#[case("version 1.2.3", "version one point two point three")]
#[case("192.168.0.1", "one nine two dot one six eight dot zero dot one")]
#[case("a 10x12 room", "a ten by twelve room")]
#[case("16:9", "sixteen to nine")]
// Money.
#[case("₹1,25,000", "one lakh twenty-five thousand rupees")]
#[case("₹ 1250000", "twelve lakh fifty thousand rupees")]
#[case("Rs. 499.50", "four hundred ninety-nine rupees and fifty paise")]
#[case("Rs 2 crore", "two crore rupees")]
#[case("$1", "one dollar")]
#[case("$9.99.", "nine dollars and ninety-nine cents.")]
#[case("$0.05", "five cents")]
#[case("$1.5 million", "one point five million dollars")]
#[case("$5k", "five thousand dollars")]
#[case("-$20", "minus twenty dollars")]
#[case("$5/month", "five dollars per month")]
#[case("20€ or £3.01", "twenty euros or three pounds and one penny")]
#[case("500 USD", "five hundred dollars")]
// Dates.
#[case("on 24/12/2026", "on December twenty-fourth, twenty twenty-six")]
#[case("12/24/2026", "December twenty-fourth, twenty twenty-six")]
#[case("2026-12-24", "December twenty-fourth, twenty twenty-six")]
#[case("2026-12-24T18:05Z", "December twenty-fourth, twenty twenty-six, eighteen oh five")]
#[case("Dec 24, 2026", "December twenty-fourth, twenty twenty-six")]
#[case("24 Dec 2026", "the twenty-fourth of December, twenty twenty-six")]
#[case("the 3rd of March", "the third of March")]
#[case("in Sept. 2025", "in September twenty twenty-five")]
#[case("since 1995", "since nineteen ninety-five")]
#[case("the 1990s", "the nineteen nineties")]
#[case("May I help?", "May I help?")]
// Times.
#[case("18:05", "eighteen oh five")]
#[case("at 6:30 pm.", "at six thirty P M.")]
#[case("9am", "nine A M")]
#[case("at 6 p.m. today", "at six P M today")]
#[case("12:00", "twelve o'clock")]
#[case("00:30:05", "zero thirty and five seconds")]
#[case("25:61", "twenty-five to sixty-one")]
// Phone numbers.
#[case("1-800-555-0199", "one, eight zero zero, five five five, zero one nine nine")]
#[case(
    "+91 80357 37458",
    "plus nine one, eight zero three five seven, three seven four five eight"
)]
#[case("call (212) 555-0100.", "call (two one two), five five five, zero one zero zero.")]
#[case("98765 43210", "nine eight seven six five, four three two one zero")]
#[case("9876543210", "nine eight seven, six five four, three two one zero")]
#[case("555-0199", "five five five, zero one nine nine")]
#[case("+4930123456", "plus four nine three, zero one two, three four five six")]
// Addresses.
#[case("Write to jane.doe42@example.com!", "Write to jane dot doe four two at example dot com!")]
#[case("www.example.co.uk/help", "W W W dot example dot co dot U K slash help")]
#[case("https://example.com/", "example dot com")]
#[case("See example.org.", "See example dot org.")]
// Codes.
#[case("A-4711", "A, four seven one one")]
#[case("order AB12CD", "order A, B twelve C D")]
#[case("flight AI-202", "flight A, I, two zero two")]
#[case("5G and 3D", "five G and three D")]
#[case("your code is 4711", "your code is four seven one one")]
#[case("482915 is your code", "four eight two nine one five is your code")]
#[case("room 204", "room two zero four")]
#[case("PIN: 0420", "PIN: zero four two zero")]
#[case("dial *9#", "dial star nine hash")]
#[case("press # or *", "press hash or star")]
#[case("#5", "number five")]
// Fractions, percentages, units.
#[case("1/2", "one half")]
#[case("3/4 cup", "three quarters cup")]
#[case("1 1/2 hours", "one and a half hours")]
#[case("7/12", "seven over twelve")]
#[case("5%", "five percent")]
#[case("12.5 % off", "twelve point five percent off")]
#[case("25°C", "twenty-five degrees Celsius")]
#[case("10km", "ten kilometres")]
#[case("1 kg", "one kilogram")]
#[case("80 km/h", "eighty kilometres per hour")]
#[case("24/7", "twenty-four seven")]
// Ranges.
#[case("Mon-Fri", "Monday to Friday")]
#[case("Mon - Fri", "Monday to Friday")]
#[case("9am-5pm", "nine A M to five P M")]
#[case("9-5pm", "nine to five P M")]
#[case("09:00-17:30", "nine o'clock to seventeen thirty")]
#[case("Jan-Mar", "January to March")]
#[case("10-12 days", "ten to twelve days")]
#[case("2019-2021", "twenty nineteen to twenty twenty-one")]
#[case("5-10%", "five to ten percent")]
// Ranks and abbreviations.
#[case("the 22nd floor", "the twenty-second floor")]
#[case("1st, 2nd and 3rd", "first, second and third")]
#[case("Dr. Smith lives at 5 Park Dr.", "Doctor Smith lives at five Park Drive.")]
#[case("Mr. Jones", "Mister Jones")]
#[case("12 Main St. near St. Mary", "twelve Main Street near Saint Mary")]
#[case("No. 5", "number five")]
#[case("bread, milk, etc.", "bread, milk, et cetera.")]
#[case("e.g. this", "for example this")]
#[case("AT&T & friends", "AT and T and friends")]
#[case("Tues. at 5", "Tuesday at five")]
#[case("\"Hello, world.\"", "\"Hello, world.\"")]
#[case("don't stop - wait", "don't stop - wait")]
fn american_texts_are_read_as_words(#[case] text: &str, #[case] spoken: &str) {
    assert_eq!(words(text, "en-US"), spoken);
}

#[rstest]
#[case("en-GB", "05/06/2026", "the fifth of June, twenty twenty-six")]
#[case("en-GB", "the 24/12/2026", "the twenty-fourth of December, twenty twenty-six")]
#[case("en-GB", "105", "one hundred and five")]
#[case("en-IN", "1250000 rupees", "twelve lakh fifty thousand rupees")]
#[case("en-IN", "₹3,00,00,000", "three crore rupees")]
#[case("de-DE", "24.12.2026 um 18:05", "24.12.2026 um 18:05")]
#[case("hi-IN", "₹1,25,000", "₹1,25,000")]
fn regions_differ(#[case] tag: &str, #[case] text: &str, #[case] spoken: &str) {
    assert_eq!(words(text, tag), spoken);
}

#[test]
fn spaces_around_a_run_are_kept() {
    assert_eq!(words(" press 1 ", "en-US"), " press one ");
    assert_eq!(words("", "en-US"), "");
    assert_eq!(words(" ", "en-US"), " ");
}

proptest! {
    /// No text makes the reader fail, and no ASCII digit of a plain number is left.
    #[test]
    fn any_text_is_read(text in "[ -~₹€°àक😀]{0,80}") {
        let _ = words(&text, "en-US");
        let _ = words(&text, "en-IN");
    }

    #[test]
    fn every_number_becomes_words(n in 0u64..1_000_000_000_000) {
        let text = n.to_string();
        let spoken = words(&text, "en-US").into_owned();
        prop_assert!(!spoken.contains(|c: char| c.is_ascii_digit()), "{spoken}");
    }
}
