//! Known-answer tests from RFC 3711 and RFC 7714, and properties of all profiles.

use proptest::prelude::*;

use super::kdf::{Label, derive};
use super::{Keys, Profile, Transform};

fn bytes(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(digits).expect("hexadecimal")
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().expect("matching length")
}

#[test]
fn rfc_3711_b_2_key_stream() {
    // The example's salt with SSRC, rollover counter and sequence number 0: a payload of zeroes
    // shows the key stream.
    let transform = Transform::of_cm_keys(
        &bytes("2B7E151628AED2A6ABF7158809CF4F3C"),
        &[0; 20],
        array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
    );
    let mut packet = vec![0; 12 + 48];
    assert!(transform.seal_rtp(12, 0, &mut packet, 0));
    let stream = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(packet[12..60], bytes(stream));
}

#[test]
fn rfc_3711_b_3_key_derivation() {
    let key = bytes("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = bytes("0EC675AD498AFEEBB6960B3AABE6");
    assert_eq!(
        derive(&key, &salt, Label::RtpKey),
        Some(array::<16>("C61E7A93744F39EE10734AFE3FF7A087"))
    );
    assert_eq!(
        derive(&key, &salt, Label::RtpSalt),
        Some(array::<14>("30CBBC08863D8C85D49DB34A9AE1"))
    );
    let authentication =
        "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE E049646C43D9327AD175578EF7227098
        6371C10C9A369AC2F94A8C5FBCDDDC25 6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2";
    assert_eq!(derive(&key, &salt, Label::RtpAuthentication), Some(array::<94>(authentication)));
    assert_eq!(derive::<16>(&key[..15], &salt, Label::RtpKey), None);
    assert_eq!(derive::<16>(&key, &[0; 15], Label::RtpKey), None);
}

/// The test packet of other implementations of RFC 3711, under the master keys of its appendix B.3.
#[test]
fn counter_mode_matches_other_implementations() {
    let keys = bytes("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = bytes("0EC675AD498AFEEBB6960B3AABE6");
    let transform = Transform::new(Profile::Aes128CmSha1, &keys, &salt).expect("keys");
    let plain = bytes("800F1234DECAFBADCAFEBABE ABABABABABABABABABABABABABABABAB");
    let sealed =
        bytes("800F1234DECAFBADCAFEBABE 4E55DC4CE79978D88CA4D215949D2402 B78D6ACC99EA179B8DBB");
    let mut packet = plain.clone();
    assert!(transform.seal_rtp(12, 0x1234, &mut packet, 0));
    assert_eq!(packet, sealed);
    let mut out = Vec::new();
    assert!(transform.open_rtp(&sealed, 12, 0x1234, &mut out));
    assert_eq!(out, plain[12..]);
    assert!(!transform.open_rtp(&sealed, 12, 0x1_1234, &mut out), "another rollover");
}

/// RFC 7714 §16 and §17: "Gallia est omnis divisa in partes tres".
const SALT: &str = "51756964 2070726F 2071756F";
const RTP: &str = "8040F17B 8041F8D3 5501A0B2 47616C6C 69612065 7374206F 6D6E6973 20646976 69736120 696E2070 61727465 73207472 6573";
const RTCP: &str = "81C8000D 4D617273 4E545031 4E545032 52545020 0000042A 0000E930 4C756E61 DEADBEEF DEADBEEF DEADBEEF DEADBEEF DEADBEEF";
/// The index of §17.
const INDEX: u32 = 0x5d4;

#[test]
fn rfc_7714_rtp_and_rtcp() {
    let key: Vec<u8> = (0..32).collect();
    let cases = [
        (
            &key[..16],
            "8040F17B 8041F8D3 5501A0B2 F24DE3A3 FB34DE6C ACBA861C 9D7E4BCA BE633BD5 0D294E6F 42A5F47A 51C7D19B 36DE3ADF
             8833 899D7F27 BEB16A91 52CF765E E4390CCE",
            "81C8000D 4D617273 63E94885 DCDAB67C A727D766 2F6B7E99 7FF5C0F7 6C06F32D C676A5F1 730D6FDA 4CE09B46 86303DED
             0BB9275B C84AA458 96CF4D2F C5ABF872 45D9EADE 800005D4",
        ),
        (
            &key[..32],
            "8040F17B 8041F8D3 5501A0B2 32B1DE78 A822FE12 EF9F78FA 332E33AA B1801238 9A58E2F3 B50B2A02 76FFAE0F 1BA63799
             B87B 7AA3DB36 DFFFD6B0 F9BB7878 D7A76C13",
            "81C8000D 4D617273 D50AE4D1 F5CE5D30 4BA297E4 7D470C28 2C3ECE5D BFFE0A50 A2EAA5C1 110555BE 8415F658 C61DE047
             6F1B6FAD 1D1EB30C 4446839F 57FF6F6C B26AC3BE 800005D4",
        ),
    ];
    for (key, rtp, rtcp) in cases {
        let transform = Transform::of_session_keys(key, array(SALT));
        let mut packet = bytes(RTP);
        assert!(transform.seal_rtp(12, 0xf17b, &mut packet, 0));
        assert_eq!(hex::encode_upper(&packet), hex::encode_upper(bytes(rtp)));
        let mut out = Vec::new();
        assert!(transform.open_rtp(&packet, 12, 0xf17b, &mut out));
        assert_eq!(out, bytes(RTP)[12..]);

        let mut packet = bytes(RTCP);
        assert!(transform.seal_rtcp(INDEX, &mut packet, 0));
        assert_eq!(hex::encode_upper(&packet), hex::encode_upper(bytes(rtcp)));
        assert_eq!(transform.rtcp_index(&packet), Some(INDEX));
        assert!(transform.open_rtcp(&packet, &mut out));
        assert_eq!(out, bytes(RTCP));
    }
}

#[test]
fn client_and_server_use_each_others_keys() {
    for profile in [Profile::Aes128CmSha1, Profile::Aes128Gcm, Profile::Aes256Gcm] {
        let length = 2 * (profile.key_len() + profile.salt_len());
        let material: Vec<u8> = (0..).take(length).collect();
        let side = |client| {
            Keys::new(profile, &material, client).and_then(|k| k.directions()).expect("keys")
        };
        let ((seal, open), (other_seal, other_open)) = (side(true), side(false));
        let mut packet = bytes(RTP);
        assert!(seal.seal_rtp(12, 7, &mut packet, 0));
        let mut out = Vec::new();
        assert!(other_open.open_rtp(&packet, 12, 7, &mut out) && out == bytes(RTP)[12..]);
        assert!(!open.open_rtp(&packet, 12, 7, &mut out) && out.is_empty(), "reflected");
        let mut report = bytes(RTCP);
        assert!(other_seal.seal_rtcp(1, &mut report, 0));
        assert!(open.open_rtcp(&report, &mut out) && out == bytes(RTCP));
        assert!(Keys::new(profile, &material[1..], true).is_none());
    }
}

fn profiles() -> impl Strategy<Value = Transform> {
    prop_oneof![Just(Profile::Aes128CmSha1), Just(Profile::Aes128Gcm), Just(Profile::Aes256Gcm)]
        .prop_map(|profile| {
            Transform::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()])
                .expect("keys")
        })
}

proptest! {
    #[test]
    fn opens_sealed_packets_but_not_altered_ones(
        transform in profiles(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        index in 0_u64..1 << 48,
        altered in any::<(prop::sample::Index, u8)>(),
        before in 0_usize..40,
    ) {
        let mut packet = vec![0xEE; before];
        packet.extend([&bytes(RTP)[..12], &payload].concat());
        prop_assert!(transform.seal_rtp(12, index, &mut packet, before));
        prop_assert!(packet[..before].iter().all(|byte| *byte == 0xEE), "bytes before the packet are unchanged");
        let mut packet = packet.split_off(before);
        let mut out = vec![1, 2, 3];
        prop_assert!(transform.open_rtp(&packet, 12, index, &mut out));
        prop_assert_eq!(&out, &payload);
        prop_assert!(!transform.open_rtp(&packet[..packet.len() - 1], 12, index, &mut out));
        if altered.1 != 0 {
            let at = altered.0.index(packet.len());
            packet[at] ^= altered.1;
            prop_assert!(!transform.open_rtp(&packet, 12, index, &mut out));
        }
    }

    #[test]
    fn opens_sealed_reports_but_not_altered_ones(
        transform in profiles(),
        index in 0_u32..1 << 31,
        altered in any::<(prop::sample::Index, u8)>(),
    ) {
        let mut packet = bytes(RTCP);
        prop_assert!(transform.seal_rtcp(index, &mut packet, 0));
        let mut out = Vec::new();
        prop_assert_eq!(transform.rtcp_index(&packet), Some(index));
        prop_assert!(transform.open_rtcp(&packet, &mut out) && out == bytes(RTCP));
        if altered.1 != 0 {
            let at = altered.0.index(packet.len());
            packet[at] ^= altered.1;
            prop_assert!(!transform.open_rtcp(&packet, &mut out));
        }
    }

    #[test]
    fn rejects_garbage(transform in profiles(), garbage in proptest::collection::vec(any::<u8>(), 0..80), header in 0_usize..90) {
        let mut out = Vec::new();
        prop_assert!(!transform.open_rtp(&garbage, header, 5, &mut out));
        prop_assert!(!transform.open_rtcp(&garbage, &mut out));
        let _ = transform.rtcp_index(&garbage);
        let length = garbage.len();
        let mut short = garbage;
        prop_assert!(!transform.seal_rtp(length + 1, 5, &mut short, 0));
    }
}
