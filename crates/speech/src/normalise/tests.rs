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

/// Short texts as prompts have them, and what a person would say.
const TEXTS: &[(&str, &str)] = &[
    ("Your balance is ₹1,25,000.", "Your balance is one lakh twenty-five thousand rupees."),
    ("₹1,25,000.50 is due", "one lakh twenty-five thousand rupees and fifty paise is due"),
    ("₹5", "five rupees"),
    ("₹1", "one rupee"),
    ("Rs.500/-", "five hundred rupees"),
    ("INR 2,500", "two thousand five hundred rupees"),
    ("₹2.5 lakh", "two point five lakh rupees"),
    ("₹10L", "ten lakh rupees"),
    ("1.5 cr", "one point five crore"),
    (
        "$1,234,567.89",
        "one million two hundred thirty-four thousand five hundred sixty-seven dollars and eighty-nine cents",
    ),
    ("$0.99", "ninety-nine cents"),
    ("-$5.25", "minus five dollars and twenty-five cents"),
    ("$10-15", "ten to fifteen dollars"),
    ("€1.299,50", "one thousand two hundred ninety-nine euros and fifty cents"),
    ("£20m", "twenty million pounds"),
    ("1,000,000", "one million"),
    ("The total is 1,000.00 dollars", "The total is one thousand point zero zero dollars"),
    ("-40°F", "minus forty degrees Fahrenheit"),
    ("-5.5", "minus five point five"),
    ("+7", "plus seven"),
    ("0.5", "zero point five"),
    (".75", "zero point seven five"),
    ("3.0", "three point zero"),
    ("99.9%", "ninety-nine point nine percent"),
    ("0.1%", "zero point one percent"),
    ("100%", "one hundred percent"),
    ("1/3", "one third"),
    ("2/3 of users", "two thirds of users"),
    ("3/4", "three quarters"),
    ("5/8", "five eighths"),
    ("11/16", "eleven over sixteen"),
    ("1/2 price", "one half price"),
    ("½ hour", "one half hour"),
    ("2½ hours", "two and a half hours"),
    ("¼", "one quarter"),
    ("24/12/2026", "December twenty-fourth, twenty twenty-six"),
    ("1/2/26", "January second, twenty twenty-six"),
    ("2026/12/24", "December twenty-fourth, twenty twenty-six"),
    ("12-24-2026", "December twenty-fourth, twenty twenty-six"),
    ("24.12.2026", "December twenty-fourth, twenty twenty-six"),
    ("Dec 24", "December twenty-fourth"),
    ("24th December 2026", "the twenty-fourth of December, twenty twenty-six"),
    ("24 Dec", "the twenty-fourth of December"),
    ("December 24th, 2026", "December twenty-fourth, twenty twenty-six"),
    ("the 1st of May", "the first of May"),
    ("May 5", "May fifth"),
    ("5 May 2026", "the fifth of May, twenty twenty-six"),
    ("Thu, 24 Dec 2026", "Thursday, the twenty-fourth of December, twenty twenty-six"),
    ("Thu 24 Dec", "Thursday the twenty-fourth of December"),
    ("1 Jan.", "the first of January."),
    ("3/4/2026 at 18:05", "March fourth, twenty twenty-six at eighteen oh five"),
    ("18:05:30", "eighteen oh five and thirty seconds"),
    ("00:00", "midnight"),
    ("00:05", "zero oh five"),
    ("0:30", "zero thirty"),
    ("7:00 AM", "seven A M"),
    ("7 a.m.", "seven A M."),
    ("7:05am", "seven oh five A M"),
    ("11:59pm", "eleven fifty-nine P M"),
    ("12 noon", "twelve noon"),
    ("noon-5pm", "noon to five P M"),
    ("9:00 AM - 5:00 PM", "nine A M to five P M"),
    ("9 to 5", "nine to five"),
    ("Mon-Fri 9-17", "Monday to Friday nine to seventeen"),
    ("Mon-Fri, 9:00-18:00", "Monday to Friday, nine o'clock to eighteen hundred"),
    ("Mon–Fri", "Monday to Friday"),
    ("Sat/Sun", "Saturday or Sunday"),
    ("Mon, Wed & Fri", "Monday, Wednesday and Friday"),
    ("Tue-Thu", "Tuesday to Thursday"),
    ("Jan–Mar", "January to March"),
    ("2019–2021", "twenty nineteen to twenty twenty-one"),
    ("pp. 10-12", "pages ten to twelve"),
    ("1 (800) 555-0199", "one, eight zero zero, five five five, zero one nine nine"),
    ("+91 80357 37458", "plus nine one, eight zero three five seven, three seven four five eight"),
    ("+91-80357-37458", "plus nine one, eight zero three five seven, three seven four five eight"),
    ("+918035737458", "plus nine one, eight zero three five seven, three seven four five eight"),
    ("080-4567-8901", "zero eight zero, four five six seven, eight nine zero one"),
    ("(080) 4567 8901", "(zero eight zero), four five six seven, eight nine zero one"),
    ("+1 212 555 0100", "plus one, two one two, five five five, zero one zero zero"),
    ("+44 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight"),
    ("020 7946 0958", "zero two zero, seven nine four six, zero nine five eight"),
    ("112", "one hundred twelve"),
    ("call 911", "call nine one one"),
    ("dial 100", "dial one zero zero"),
    ("AB-12-CD", "A, B, twelve, C D"),
    ("INV-2024-0012", "I N V, two zero two four, zero zero one two"),
    ("PNR ABC123", "PNR A, B C one two three"),
    ("order #12345", "order number one two three four five"),
    ("Order no. 98765", "Order number nine eight seven six five"),
    ("flight 6E-2041", "flight six E, two zero four one"),
    ("KA-01-AB-1234", "K A, zero one, A, B, one two three four"),
    ("GST 29ABCDE1234F1Z5", "GST twenty-nine A, B C D E one two three four F one Z five"),
    ("MH12AB1234", "M H twelve A, B one two three four"),
    ("ID: x7Y9z", "ID: X seven Y nine Z"),
    ("B2B", "B two B"),
    ("COVID-19", "COVID, nineteen"),
    ("4K TV", "four K TV"),
    ("iPhone 15", "iPhone fifteen"),
    ("MP3", "M P three"),
    ("H2O", "H two O"),
    ("A/C", "A, C"),
    ("24x7", "twenty-four seven"),
    ("info@acme.in", "info at acme dot in"),
    (
        "first.last+tag@mail.example.co.uk",
        "first dot last plus tag at mail dot example dot co dot U K",
    ),
    ("www.acme.com", "W W W dot acme dot com"),
    ("https://acme.com/pay?id=12", "acme dot com slash pay question mark I D equals one two"),
    ("acme.io/help", "acme dot I O slash help"),
    ("docs.acme.com:8080", "docs dot acme dot com colon eight zero eight zero"),
    ("5kg", "five kilograms"),
    ("5 kg", "five kilograms"),
    ("1.5 l", "one point five litres"),
    ("20 km/h", "twenty kilometres per hour"),
    ("60mph", "sixty miles per hour"),
    ("10 ft", "ten feet"),
    ("500 ml", "five hundred millilitres"),
    ("10 mg", "ten milligrams"),
    ("2 GB", "two gigabytes"),
    ("100Mbps", "one hundred megabits per second"),
    ("30 min", "thirty minutes"),
    ("30 mins", "thirty minutes"),
    ("2 hrs", "two hours"),
    ("1 hr", "one hour"),
    ("45 sec", "forty-five seconds"),
    ("10 m", "ten metres"),
    ("3 sq ft", "three square feet"),
    ("25 °C", "twenty-five degrees Celsius"),
    ("37.5°C", "thirty-seven point five degrees Celsius"),
    ("1st", "first"),
    ("2nd", "second"),
    ("21st", "twenty-first"),
    ("100th", "one hundredth"),
    ("1st-3rd", "first to third"),
    ("No. 7", "number seven"),
    ("Nos. 7 and 8", "numbers seven and eight"),
    ("Ph.D.", "P H D."),
    ("U.S.A.", "U S A."),
    ("U.S.", "U S."),
    ("a.k.a.", "A, K A."),
    ("Mr. & Mrs. Rao", "Mister and Missus Rao"),
    ("St. John's Rd.", "Saint John's Road."),
    ("Dr. A. P. J. Abdul Kalam", "Doctor A P J Abdul Kalam"),
    ("Govt. of India", "Government of India"),
    ("Sr. Manager", "Senior Manager"),
    ("OTP is 123456", "OTP is one two three four five six"),
    ("OTP: 4-5-6-7", "OTP: four, five, six, seven"),
    ("PIN 1234", "PIN one two three four"),
    ("your code is 00-42", "your code is zero zero, four two"),
    ("v2.0", "version two point zero"),
    ("v1.2.3", "version one point two point three"),
    ("page 3 of 10", "page three of ten"),
    ("5+", "five plus"),
    ("18+", "eighteen plus"),
    ("1:1", "one to one"),
    ("3:2", "three to two"),
    ("50-50", "fifty fifty"),
    ("Q1 2026", "Q one twenty twenty-six"),
    ("FY2025-26", "F Y twenty twenty-five twenty-six"),
    ("1990s", "nineteen nineties"),
    ("Room 12B", "Room twelve B"),
    ("Gate A12", "Gate A, twelve"),
    ("Platform 5", "Platform five"),
    ("12B, MG Road", "twelve B, MG Road"),
    ("PIN code 560001", "PIN code five six zero zero zero one"),
    ("560 001", "five six zero, zero zero one"),
    ("Bengaluru - 560001", "Bengaluru - five six zero zero zero one"),
    ("card ending 4242", "card ending four two four two"),
    ("**** 4242", "ending in four two four two"),
    ("XXXX1234", "ending in one two three four"),
    ("Yes/No", "Yes or No"),
    ("his/her", "his or her"),
    ("#1", "number one"),
    ("@acme", "at acme"),
    ("50% off!", "fifty percent off!"),
    ("~5 minutes", "about five minutes"),
    ("≈ 10", "about ten"),
    ("≥ 18", "at least eighteen"),
    ("±5", "plus or minus five"),
    ("10 – 12", "ten to twelve"),
    ("$5 – $10", "five dollars to ten dollars"),
    ("2 × 3", "two times three"),
    ("1,50,000/-", "one lakh fifty thousand rupees"),
    ("1 crore", "one crore"),
    ("25 lakhs", "twenty-five lakhs"),
    ("2.75 million", "two point seven five million"),
    ("1.2bn", "one point two billion"),
    ("$3B", "three billion dollars"),
    ("10k", "ten thousand"),
    ("10K run", "ten K run"),
    ("5G", "five G"),
    ("4 a.m. to 6 p.m.", "four A M to six P M."),
    ("20-year-old", "twenty year old"),
    ("3-day trip", "three day trip"),
    ("two 2-litre bottles", "two two litre bottles"),
    ("7-Eleven", "seven Eleven"),
    ("1984", "nineteen eighty-four"),
    ("in 1984", "in nineteen eighty-four"),
    ("2001: A Space Odyssey", "two thousand one: A Space Odyssey"),
    ("year 2030", "year twenty thirty"),
    ("1066", "one thousand sixty-six"),
    ("3,500 calories", "three thousand five hundred calories"),
    ("12345678", "one two three four five six seven eight"),
    ("123-45-6789", "one two three, four five, six seven eight nine"),
    ("192.168.1.1", "one nine two dot one six eight dot one dot one"),
    ("C++", "C plus plus"),
    ("C#", "C sharp"),
    (".NET", "dot net"),
    ("Press *", "Press star"),
    ("Press 1, 2 or 3.", "Press one, two or three."),
    ("Press 0#", "Press zero hash"),
    ("5* hotel", "five star hotel"),
    ("4.5/5", "four point five out of five"),
    ("8/10", "eight out of ten"),
    ("9 out of 10", "nine out of ten"),
    ("10-20-30", "ten, twenty, thirty"),
    ("4-5-6-7", "four, five, six, seven"),
    ("00-42", "zero zero, four two"),
    ("₹100-200", "one hundred to two hundred rupees"),
    ("+14155550123", "plus one, four one five, five five five, zero one two three"),
    ("2024-25", "twenty twenty-four twenty-five"),
    ("U.S. Government", "U S Government"),
    ("Plan A. Then go.", "Plan A. Then go."),
    ("12:30 - 14:00", "twelve thirty to fourteen hundred"),
    ("18:00", "eighteen hundred"),
];

#[test]
fn short_texts_are_read_as_a_person_would() {
    let wrong: Vec<_> = TEXTS
        .iter()
        .map(|(text, spoken)| (text, words(text, "en-US"), spoken))
        .filter(|(_, found, spoken)| found != *spoken)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The words of `say-as` of each kind, after both steps.
#[test]
fn say_as_is_read_as_a_person_would() {
    const TEXTS: &[(&str, Option<&str>, &str, &str, &str)] = &[
        ("spell-out", None, "en-US", "ab1", "A, B, one"),
        ("characters", None, "en-GB", "A-4711", "A, dash, four, seven, one, one"),
        ("digits", None, "en-US", "4711", "four seven one one"),
        (
            "telephone",
            None,
            "en-US",
            "1-800-555-0199",
            "one, eight zero zero, five five five, zero one nine nine",
        ),
        (
            "telephone",
            None,
            "en-IN",
            "+91 80357 37458",
            "plus nine one, eight zero three five seven, three seven four five eight",
        ),
        ("cardinal", None, "en-US", "1234", "one thousand two hundred thirty-four"),
        ("cardinal", None, "en-IN", "125000", "one lakh twenty-five thousand"),
        ("ordinal", None, "en-US", "21", "twenty-first"),
        ("ordinal", None, "en-US", "111", "one hundred eleventh"),
        ("fraction", None, "en-US", "1/2", "one half"),
        ("fraction", None, "en-US", "3+1/2", "three and one half"),
        ("fraction", None, "en-US", "2/9", "two over nine"),
        ("unit", None, "en-US", "10km", "ten kilometres"),
        ("unit", None, "en-US", "1kg", "one kilogram"),
        ("date", Some("mdy"), "en-US", "12/24/2026", "December twenty-fourth, twenty twenty-six"),
        (
            "date",
            Some("dmy"),
            "en-IN",
            "24/12/2026",
            "the twenty-fourth of December, twenty twenty-six",
        ),
        ("date", Some("dm"), "en-GB", "24/12", "the twenty-fourth of December"),
        ("date", Some("my"), "en-US", "12/2026", "December twenty twenty-six"),
        ("date", Some("y"), "en-US", "2026", "twenty twenty-six"),
        ("date", None, "en-US", "20261224", "December twenty-fourth, twenty twenty-six"),
        ("time", None, "en-US", "18:05", "eighteen oh five"),
        ("time", None, "en-US", "1'21\"", "one minute twenty-one seconds"),
        ("time", Some("hms12"), "en-US", "2:30pm", "two thirty P M"),
        (
            "address",
            None,
            "en-US",
            "150 N. Main St., Apt. 4",
            "one hundred fifty N. Main Street, Apartment four",
        ),
        ("expletive", None, "en-US", "damn", "damn"),
    ];
    for (kind, format, tag, text, spoken) in TEXTS {
        let form = crate::say_as::spoken_form(kind, *format, text, tag);
        assert_eq!(words(&form, tag), *spoken, "{kind} {text}");
    }
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
