//! A TCP listener with connections that can be reset after a number of bytes, so that faults can
//! break a Graph response in the middle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Pause after a failed `accept`, which may be a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Resets one connection.
#[derive(Clone, Debug)]
pub(crate) struct ResetHandle(Arc<AtomicUsize>);

impl ResetHandle {
    fn never() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// Resets the connection after `bytes` more bytes were written to it.
    pub(crate) fn after(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Release);
    }
}

pub(crate) struct ResettableListener(pub(crate) TcpListener);

impl Listener for ResettableListener {
    type Io = ResettableStream;
    type Addr = ResetHandle;

    async fn accept(&mut self) -> (ResettableStream, ResetHandle) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let reset = ResetHandle::never();
                    return (ResettableStream { stream, reset: reset.clone() }, reset);
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<ResetHandle> {
        self.0.local_addr().map(|_| ResetHandle::never())
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for ResetHandle {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        stream.remote_addr().clone()
    }
}

pub(crate) struct ResettableStream {
    stream: TcpStream,
    reset: ResetHandle,
}

impl AsyncRead for ResettableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.reset.0.load(Ordering::Acquire);
        if left == usize::MAX {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if left == 0 {
            // With a linger time of zero, closing the socket sends a reset.
            let _ = self.stream.set_zero_linger();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let some = bytes.get(..left.min(bytes.len())).unwrap_or_default();
        let written = Pin::new(&mut self.stream).poll_write(cx, some);
        if let Poll::Ready(Ok(count)) = &written {
            self.reset.0.store(left.saturating_sub(*count), Ordering::Release);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
