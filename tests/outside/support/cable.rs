//! A TCP connection that a test can cut: a proxy that then forwards nothing, and closes nothing.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy to a port of the loopback.
pub struct Cable {
    pub port: u16,
    is_cut: watch::Sender<bool>,
}

impl Cable {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let is_cut = watch::Sender::new(false);
        let cuts = is_cut.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, port, cuts.clone()));
            }
        });
        Self { port: own, is_cut }
    }

    /// Cuts all connections. New ones are accepted and hang.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Mends the cable. Connections that were cut are closed.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn forward(mut client: TcpStream, port: u16, mut is_cut: watch::Receiver<bool>) {
    let mut cut = is_cut.clone();
    let copied = async {
        if *cut.borrow_and_update() {
            return;
        }
        #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
        let server = TcpStream::connect(("127.0.0.1", port)).await;
        if let Ok(mut server) = server {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        }
    };
    copied.await;
    let _ = is_cut.wait_for(|cut| !*cut).await;
}
