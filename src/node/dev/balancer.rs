//! A TCP balancer on loopback, for the nodes of a development fleet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Timeout for a backend to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Distributes the connections to an address over backends in turn. Connections end when their
/// backend is removed, and all of them when the balancer is dropped.
#[derive(Debug)]
pub(super) struct Balancer {
    address: SocketAddr,
    backends: Arc<[Backend]>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Backend {
    address: SocketAddr,
    /// Whether the backend gets connections.
    is_in: watch::Sender<bool>,
}

impl Balancer {
    /// Listens at an address. `are_in` is whether the backends get connections from the start.
    ///
    /// # Errors
    /// Returns an error if the address is taken.
    pub(super) async fn start(
        listen: SocketAddr,
        backends: impl IntoIterator<Item = SocketAddr>,
        are_in: bool,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let backend = |address| Backend { address, is_in: watch::Sender::new(are_in) };
        let backends: Arc<[Backend]> = backends.into_iter().map(backend).collect();
        let stop = CancellationToken::new();
        let accept = accept(listener, backends.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Ok(Self { address, backends, _stop: stop.drop_guard() })
    }

    /// Returns the address at which it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a backend, or removes it and closes its connections.
    pub(super) fn set(&self, backend: usize, is_in: bool) {
        if let Some(backend) = self.backends.get(backend) {
            backend.is_in.send_replace(is_in);
        }
    }
}

async fn accept(listener: TcpListener, backends: Arc<[Backend]>, stop: CancellationToken) {
    for turn in 0_usize.. {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Too many open files, most likely: others have to end first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let relay = relay(client, backends.clone(), turn);
        tokio::spawn(stop.clone().run_until_cancelled_owned(relay));
    }
}

/// Connects a client to the next backend in turn that accepts the connection.
async fn relay(mut client: TcpStream, backends: Arc<[Backend]>, turn: usize) {
    let mut candidates: Vec<&Backend> =
        backends.iter().filter(|backend| *backend.is_in.borrow()).collect();
    let first = turn.checked_rem(candidates.len()).unwrap_or_default();
    candidates.rotate_left(first);
    for backend in candidates {
        let mut is_in = backend.is_in.subscribe();
        #[allow(clippy::disallowed_methods, reason = "only between processes of this world")]
        let connect = TcpStream::connect(backend.address);
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            _ = is_in.wait_for(|is_in| !is_in) => {}
        }
        return;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::Balancer;

    /// Answers each connection with a letter.
    async fn backend(letter: u8) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    client.write_all(&[letter]).await.unwrap();
                    let _ = client.read(&mut [0]).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
    async fn connections_go_to_the_backends_in_turn_and_end_with_theirs() {
        let backends = [backend(b'a').await, backend(b'b').await];
        let any = "127.0.0.1:0".parse().unwrap();
        let balancer = Balancer::start(any, backends, true).await.unwrap();
        let connect = async || {
            let mut client = TcpStream::connect(balancer.address()).await.unwrap();
            let letter = client.read_u8().await.unwrap();
            (letter, client)
        };
        let (first, mut of_a) = connect().await;
        let (second, _of_b) = connect().await;
        assert_eq!([first, second], *b"ab");
        balancer.set(0, false);
        assert_eq!(of_a.read(&mut [0]).await.unwrap(), 0, "its backend was taken out");
        assert_eq!([connect().await.0, connect().await.0], *b"bb");
        balancer.set(0, true);
        assert!([connect().await.0, connect().await.0].contains(&b'a'));
    }
}
