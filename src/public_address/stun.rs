//! Requests the public address of a socket from STUN servers (RFC 8489).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::choice::{Answer, DetectedAddresses};
use super::{Family, source_address};
use egress::{Resolve as _, SystemResolver};
use engine::config::StunServer;
use media::stun::{TransactionId, binding_request, mapped_address};
use model::can_reach;

/// Timeout for resolving the host names of the servers.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Intervals between attempts while no server has answered. After the last one, no more attempts
/// are made.
const WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1_000), Duration::from_millis(1_500)];
/// Number of answers that are awaited. The second one shows whether the NAT is symmetric.
const ANSWERS_WANTED: usize = 2;
const DATAGRAM_MAX: usize = 1_500;

/// A server with its addresses, or the reason why it has none.
pub(super) struct Server {
    name: String,
    addresses: Result<Vec<IpAddr>, String>,
    port: u16,
}

impl Server {
    /// Returns the first address that a socket bound to `listen` can reach.
    pub(super) fn reached_from(&self, listen: IpAddr) -> Result<SocketAddr, String> {
        let found = self.addresses.clone().map_err(|why| format!("{} {why}", self.name))?;
        let found = found.into_iter().find(|ip| can_reach(*ip, listen));
        found
            .map(|ip| (ip, self.port).into())
            .ok_or_else(|| format!("{} has no address that listen.media can reach", self.name))
    }

    fn address(&self, family: Family) -> Result<SocketAddr, String> {
        let found = self.addresses.clone()?.into_iter().find(|ip| family.has(*ip));
        found.map(|ip| (ip, self.port).into()).ok_or_else(|| format!("has no {family} address"))
    }
}

/// Resolves the names of the servers concurrently.
pub(super) async fn look_up(servers: &[StunServer]) -> Vec<Server> {
    let looked_up = servers.iter().map(async |server| {
        let addresses = match timeout(LOOK_UP, SystemResolver.lookup(&server.host)).await {
            Ok(found) => found.map_err(|e| format!("could not be looked up: {e}")),
            Err(_) => Err("could not be looked up in time".to_owned()),
        };
        Server { name: server.to_string(), addresses, port: server.port }
    });
    futures_util::future::join_all(looked_up).await
}

/// Queries the servers from one socket, if the address family needs it, and adds their answers to
/// `detected`.
pub(super) async fn ask(detected: &mut DetectedAddresses, listen: IpAddr, servers: &[Server]) {
    if !detected.needs_stun() {
        return;
    }
    let mut questions = Vec::new();
    for server in servers {
        match server.address(detected.family) {
            Ok(to) => questions.push(Question { server, to, id: rand::random(), done: false }),
            Err(why) => detected.failures.push(format!("{} {why}", server.name)),
        }
    }
    let from = if listen.is_unspecified() { detected.family.unspecified() } else { listen };
    let asked = match UdpSocket::bind((from, 0)).await {
        Ok(socket) => exchange(&socket, from, &mut questions, &mut detected.answers).await,
        Err(e) => Err(e),
    };
    let why = match asked {
        Ok(()) => "did not answer".to_owned(),
        Err(e) => format!("could not be asked: {e}"),
    };
    let silent = questions.iter().filter(|question| !question.done);
    detected.failures.extend(silent.map(|question| format!("{} {why}", question.server.name)));
}

struct Question<'s> {
    server: &'s Server,
    to: SocketAddr,
    id: TransactionId,
    done: bool,
}

/// Sends the requests until the first answer, and then waits briefly for a second one.
async fn exchange(
    socket: &UdpSocket,
    from: IpAddr,
    questions: &mut [Question<'_>],
    answers: &mut Vec<Answer>,
) -> io::Result<()> {
    let wanted = ANSWERS_WANTED.min(questions.len());
    for wait in WAITS {
        let mut sent = Err(io::ErrorKind::NotFound.into());
        for question in questions.iter().filter(|question| !question.done) {
            sent = sent.or(socket.send_to(&binding_request(question.id), question.to).await);
        }
        if wanted > 0 {
            sent?;
        }
        let receiving = async {
            while answers.len() < wanted {
                let Some(answer) = receive(socket, from, questions).await else { continue };
                answers.push(answer);
            }
        };
        let _ = timeout(wait, receiving).await;
        if answers.len() >= wanted.min(1) {
            break;
        }
    }
    Ok(())
}

/// Receives one datagram. Returns `None` if it is not the answer to a request.
async fn receive(
    socket: &UdpSocket,
    from: IpAddr,
    questions: &mut [Question<'_>],
) -> Option<Answer> {
    let mut datagram = [0; DATAGRAM_MAX];
    let received = socket.recv_from(&mut datagram).await;
    // An error is that of an earlier send: an ICMP message said that a port is closed.
    let (length, sender) = received.ok()?;
    let question = questions.iter_mut().find(|question| question.to == sender && !question.done)?;
    let mapped = mapped_address(datagram.get(..length)?, question.id)?;
    let mapped = SocketAddr::new(mapped.ip().to_canonical(), mapped.port());
    let is_usable = !mapped.ip().is_unspecified() && !mapped.ip().is_multicast();
    if !is_usable {
        return None;
    }
    question.done = true;
    let local = source_address(from, question.to).ok()?;
    Some(Answer { server: question.server.name.clone(), local, mapped })
}
