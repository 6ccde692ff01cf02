//! DTLS for str0m with shorter retransmission timers. The stock provider repeats a flight only
//! after a second, so that one lost packet would delay the audio audibly; this one starts at
//! 100 ms.
//!
//! It wraps `dimpl`, the DTLS implementation that str0m uses, and adds three things. A fatal alert
//! on an established connection ends it like a close_notify, because str0m ignores such errors. The
//! connection is created, and the private key read, only when the first packet is received or sent,
//! because many calls end before that. The SRTP keys are put into a [`KeyCell`] for `transport`.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};

use super::srtp::{Keys, Profile};

/// Receives the SRTP keys of a DTLS handshake.
#[derive(Clone, Debug, Default)]
pub struct KeyCell(Arc<Mutex<Option<Keys>>>);

impl KeyCell {
    /// Returns the keys once, if the handshake is complete.
    pub fn take(&self) -> Option<Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, keys: Option<Keys>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }
}

thread_local! {
    /// The cell of the next connection that is created on this thread. It is a thread-local
    /// variable because str0m creates connections itself and passes no arguments.
    static NEXT_CELL: RefCell<Option<KeyCell>> = const { RefCell::new(None) };
}

/// Runs `make` and returns its result with the cell that receives the keys of the DTLS connection
/// created in it.
pub fn with_key_cell<T>(make: impl FnOnce() -> T) -> (T, KeyCell) {
    let keys = KeyCell::default();
    NEXT_CELL.set(Some(keys.clone()));
    let result = make();
    NEXT_CELL.take();
    (result, keys)
}

/// Time after which the first flight is repeated. It doubles with each repetition.
const FLIGHT_RTO: Duration = Duration::from_millis(100);
/// Number of repetitions of a flight. 100 ms doubled eight times is 25 s in total, which exceeds
/// the media timeout that ends the call.
const FLIGHT_RETRIES: usize = 7;
/// Maximum duration of a handshake, which exceeds the time that a leg may take from its answer to
/// its media.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// The crypto provider of every leg: str0m's own, with this DTLS.
pub fn crypto() -> CryptoProvider {
    static DTLS: Provider = Provider;
    CryptoProvider { dtls_provider: &DTLS, ..str0m::crypto::from_feature_flags() }
}

#[derive(Debug)]
struct Provider;

impl DtlsProvider for Provider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = config(mtu.unwrap_or(str0m::DATAGRAM_MTU_TARGET))?;
        let cert = cert.clone();
        let keys = NEXT_CELL.take();
        Ok(Box::new(LazyDtls {
            config,
            cert,
            version,
            now,
            inner: None,
            established: false,
            alerted: false,
            keys,
        }))
    }
}

/// All legs share one configuration, because building it validates the crypto provider.
fn config(mtu: usize) -> Result<Arc<dimpl::Config>, CryptoError> {
    static SHARED: OnceLock<Arc<dimpl::Config>> = OnceLock::new();
    if let Some(shared) = SHARED.get().filter(|c| c.mtu() == mtu) {
        return Ok(shared.clone());
    }
    let config = dimpl::Config::builder()
        // ICE has already verified the return path.
        .use_server_cookie(false)
        .mtu(mtu)
        .flight_start_rto(FLIGHT_RTO)
        .flight_retries(FLIGHT_RETRIES)
        .handshake_timeout(HANDSHAKE_MAX)
        .build()
        .map_err(|e| CryptoError::Other(format!("DTLS configuration: {e}")))?;
    Ok(SHARED.get_or_init(|| Arc::new(config)).clone())
}

struct LazyDtls {
    config: Arc<dimpl::Config>,
    cert: DtlsCert,
    version: DtlsVersion,
    /// The time of the last call of `handle_timeout`.
    now: Instant,
    /// The DTLS connection, which is created with the first packet. It takes several kilobytes.
    inner: Option<Box<dimpl::Dtls>>,
    established: bool,
    /// Whether a fatal alert arrived on the established connection. It is reported once.
    alerted: bool,
    /// The cell for the keys, if they are requested.
    keys: Option<KeyCell>,
}

impl LazyDtls {
    fn dtls(&mut self) -> &mut dimpl::Dtls {
        let Self { config, cert, version, now, inner, .. } = self;
        inner.get_or_insert_with(|| {
            let (config, cert, now) = (config.clone(), cert.clone(), *now);
            Box::new(match version {
                DtlsVersion::Dtls13 => dimpl::Dtls::new_13(config, cert, now),
                DtlsVersion::Auto => dimpl::Dtls::new_auto(config, cert, now),
                _ => dimpl::Dtls::new_12(config, cert, now),
            })
        })
    }
}

impl fmt::Debug for LazyDtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("established", &self.established).finish_non_exhaustive()
    }
}

impl DtlsInstance for LazyDtls {
    fn set_active(&mut self, active: bool) {
        // A connection starts as a server, which does nothing before it receives a packet.
        if active || self.inner.is_some() {
            self.dtls().set_active(active);
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        if self.inner.is_none() {
            let now = self.now;
            self.dtls().handle_timeout(now)?;
        }
        let result = self.dtls().handle_packet(packet);
        // Alerts are not authenticated before the connection is established, so anyone can send
        // one.
        let fatal = matches!(
            &result,
            Err(DtlsImplError::SecurityError(dimpl::SecurityError::FatalAlert { .. }))
        );
        self.alerted |= fatal && self.established;
        result
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        if std::mem::take(&mut self.alerted) {
            return DtlsOutput::CloseNotify;
        }
        let Some(dtls) = &mut self.inner else {
            return DtlsOutput::Timeout(self.now + HANDSHAKE_MAX);
        };
        let output = dtls.poll_output(buf);
        self.established |= matches!(output, DtlsOutput::Connected);
        if let (DtlsOutput::KeyingMaterial(material, profile), Some(keys)) = (&output, &self.keys) {
            let client = self.inner.as_ref().is_some_and(|dtls| dtls.is_active());
            keys.put(
                Profile::from_dtls(*profile)
                    .and_then(|profile| Keys::new(profile, material, client)),
            );
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        self.inner.as_mut().map_or(Ok(()), |dtls| dtls.handle_timeout(now))
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls().send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.as_ref().is_some_and(|dtls| dtls.is_active())
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.as_ref().and_then(|dtls| dtls.protocol_version())
    }

    fn is_closing(&self) -> bool {
        self.inner.as_ref().is_some_and(|dtls| dtls.is_closing())
    }

    fn is_closed(&self) -> bool {
        self.inner.as_ref().is_some_and(|dtls| dtls.is_closed())
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls().close()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use str0m::crypto::dtls::{DtlsInstance, DtlsOutput, DtlsVersion};

    use super::crypto;
    use model::Clock;

    /// The number of packets it sends now, and its next timeout.
    fn output(instance: &mut dyn DtlsInstance) -> (usize, Option<std::time::Instant>) {
        let mut buf = [0; 2_048];
        let mut packets = 0;
        loop {
            match instance.poll_output(&mut buf) {
                DtlsOutput::Packet(_) => packets += 1,
                DtlsOutput::Timeout(at) => return (packets, Some(at)),
                _ => {}
            }
        }
    }

    #[test]
    fn repeats_the_first_flight_after_100_ms() {
        let provider = crypto().dtls_provider;
        let cert = provider.generate_certificate().expect("certificate");
        let start = Clock::real().now();
        let mut client =
            provider.new_dtls(&cert, start, DtlsVersion::Dtls12, Some(1_150)).expect("instance");
        client.set_active(true);
        client.handle_timeout(start).expect("started");
        let _ = client.handle_packet(&[]);
        let (first, wake) = output(client.as_mut());
        assert!(first >= 1);
        let wake = wake.expect("a retry");
        assert!(wake - start <= Duration::from_millis(150), "{:?}", wake - start);
        client.handle_timeout(wake).expect("timeout handled");
        assert_eq!(output(client.as_mut()).0, first, "the flight is repeated");
    }
}
