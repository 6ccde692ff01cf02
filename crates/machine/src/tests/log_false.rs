//! `log="false"`: digits stay out of the event log, and a replay of the log still leads to the same
//! decisions.

use super::{Bench, digit, document, setup};
use crate::Machine;
use crate::contract::{CallTime, FetchId, Input, Output};
use model::Digit;

const PIN: &str = r##"<Response>
<Speak>Your PIN</Speak>
<GetDigits action="https://app.example.com/pin" numDigits="4" validDigits="123456789" log="false">
<Speak>now</Speak>
</GetDigits>
<GetInput action="https://app.example.com/menu" numDigits="1"/>
</Response>"##;

fn key(c: char) -> Digit {
    Digit::try_from(c).expect("a key")
}

#[test]
fn replaces_digits_of_a_hidden_collection_by_equivalent_ones() {
    let mut bench = Bench::live(setup(), document(PIN));
    // Digits pressed now are type-ahead for the hidden collection.
    assert!(bench.machine.hides_input());
    assert_eq!(bench.machine.redact(key('7')).as_char(), '1');
    assert_eq!(
        bench.machine.redact(key('0')).as_char(),
        '0',
        "an invalid key is replaced by an invalid one"
    );
    assert_eq!(bench.machine.redact(key('*')).as_char(), '0');
    assert_eq!(bench.machine.redact(key('#')).as_char(), '#', "the finishing key is kept");
    bench.give(digit('7'));
    bench.give(Input::Played { leg: model::Leg::A, play: bench.playing().expect("a prompt").1 });
    for c in ['8', '9', '5'] {
        assert!(bench.machine.hides_input());
        bench.give(digit(c));
    }
    let Some((_, Output::Fetch { fetch, params, .. })) = bench.outputs.last() else {
        panic!("expected a fetch, not {:?}", bench.outputs.last())
    };
    assert_eq!(*fetch, FetchId(2));
    let digits = params.get("Digits").expect("digits");
    assert_eq!(digits.reveal(), "7895", "the request contains the digits");
    assert_eq!(serde_json::to_string(digits).expect("JSON"), "\"xxxx\"");
    assert_eq!(format!("{digits:?}"), "\"xxxx\"");
    // A surplus digit would reveal something about the others.
    assert!(bench.machine.hides_input());
}

#[test]
fn a_visible_collection_hides_nothing() {
    let xml = r#"<Response><GetInput action="https://app.example.com/menu"/></Response>"#;
    let mut bench = Bench::live(setup(), document(xml));
    assert!(!bench.machine.hides_input());
    let input = digit('4');
    assert!(matches!(bench.machine.loggable(CallTime(0), &input), std::borrow::Cow::Borrowed(_)));
    assert!(!Machine::new().hides_input());
}
