//! From a listener to requests: so many connections at once, none of them for ever, TLS.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, middleware};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::{
    App,
    caller::Door,
    gate::{self, Gate},
    pace::Pace,
    patience::Patient,
    router,
};
use crate::{config::Live, daemon::Credentials};

/// All headers of a request together.
const HEADER_BYTES: usize = 64 * 1024;
/// Rest after an accept that failed, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// What a connection needs.
struct Service {
    router: Router,
    config: Live,
    credentials: Credentials,
    leave: Leave,
}

/// True from when we are to leave.
type Leave = watch::Receiver<bool>;

/// Answers whoever comes until we are to leave, and then until the last answer is whole.
pub(crate) async fn serve(listeners: Vec<Listener>, app: App, credentials: Credentials, leave: Leave) {
    let config = app.config.clone();
    let gate = Gate { config: config.clone(), credentials: credentials.clone(), pace: Pace::default() };
    let guarded = router(app).layer(middleware::from_fn_with_state(Arc::new(gate), gate::guard));
    let service = Arc::new(Service { router: guarded, config, credentials, leave });
    let mut loops = tokio::task::JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, Arc::clone(&service)));
    }
    while loops.join_next().await.is_some() {}
}

async fn accept(listener: Listener, service: Arc<Service>) {
    let most = service.config.now().limits_connections.max(1);
    let places = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)));
    let mut leave = service.leave.clone();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, connection(&listener, &service).await)
        };
        let (place, connection) = tokio::select! {
            next = next => next,
            _ = leave.wait_for(|is_over| *is_over) => break,
        };
        match connection {
            Ok(answered) => {
                tokio::spawn(async move {
                    answered.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // Whoever was let in has his answer when every place is free.
    let _ = places.acquire_many(most).await;
}

type Answered = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The next connection; what is returned answers its requests until it ends.
async fn connection(listener: &Listener, service: &Arc<Service>) -> io::Result<Answered> {
    let service = Arc::clone(service);
    Ok(match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let door = Door::unix(&stream.peer_cred()?);
            Box::pin(async move { service.answer(stream, door).await })
        }
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            let is_loopback =
                listener.local_addr().is_ok_and(|own: SocketAddr| own.ip().to_canonical().is_loopback());
            // Answers are small, and somebody waits for each.
            let _ = stream.set_nodelay(true);
            let door = Door::Tcp { from, is_loopback };
            Box::pin(async move {
                let Some(tls) = service.credentials.tls() else { return service.answer(stream, door).await };
                let patience = service.config.now().limits_idle;
                match timeout(patience, TlsAcceptor::from(tls).accept(stream)).await {
                    Ok(Ok(stream)) => service.answer(stream, door).await,
                    Ok(Err(error)) => tracing::debug!("{from}: no TLS: {error}"),
                    Err(_) => tracing::debug!("{from}: TLS took too long"),
                }
            })
        }
    })
}

impl Service {
    async fn answer(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, door: Door) {
        let router = self.router.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(door);
            router.clone().oneshot(request)
        });
        let patience = self.config.now().limits_idle;
        let stream = TokioIo::new(Patient::new(stream, patience));
        // The time for the headers is also that between two requests; a stream of events has neither.
        let mut served = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(HEADER_BYTES)
                .serve_connection(stream, answer)
        );
        let mut leave = self.leave.clone();
        let is_over = tokio::select! {
            served = &mut served => Some(served),
            _ = leave.wait_for(|is_over| *is_over) => None,
        };
        let served = if let Some(served) = is_over {
            served
        } else {
            served.as_mut().graceful_shutdown();
            served.await
        };
        if let Err(error) = served {
            tracing::debug!("a connection ended: {error}");
        }
    }
}
