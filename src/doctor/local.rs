//! What can be seen on this machine: the configuration, the store, the ports for media, the public URL.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{Doctor, Line, certificate};
use egress::{BodyPolicy, EgressError, EgressRequest, is_public};
use engine::config::Listen;
use store::Database;

/// What the node must answer within.
const WITHIN: Duration = Duration::from_secs(10);
/// What Meta's verification request is told to give back.
const CHALLENGE: &str = "offhook-doctor-4711";

impl Doctor {
    pub(super) fn local(&self) -> Vec<Line> {
        let mut lines = vec![self.configuration()];
        lines.extend(self.config.warnings().into_iter().map(|warning| {
            Line::warning(
                "configuration",
                warning,
                "correct it, then `offhook config check`, then reload the node",
            )
        }));
        lines.push(self.store_line());
        lines.push(media_port(&self.config.listen));
        lines.push(advertised(
            &self.config.public.media_ips,
            self.config.listen.media.ip(),
            self.simulated,
        ));
        lines
    }

    fn configuration(&self) -> Line {
        let numbers = self.book.all_numbers().filter(|number| !number.set.disconnected).count();
        if numbers == 0 {
            let fix = "add a [[number]], or `offhook numbers connect` at the running node";
            return Line::warning(
                "configuration",
                "it is well-formed, and there is no number",
                fix,
            );
        }
        Line::ok("configuration", format!("well-formed; numbers in service: {numbers}"))
    }

    fn store_line(&self) -> Line {
        let at = &self.config.store.database;
        match &self.store {
            Ok(()) => Line::ok("store", format!("{at} can be read")),
            Err(Some(why)) => {
                let fix = match at {
                    Database::File(_) => {
                        "run this as the node's user; if the file is damaged, restore a backup"
                    }
                    Database::Postgres(_) => {
                        "start the database; check the name and password in store.url"
                    }
                };
                Line::failed("store", format!("{at} could not be read: {why}"), fix)
            }
            Err(None) => match writable(&self.config.store.data_dir) {
                Ok(()) => Line::ok(
                    "store",
                    format!("{at} is not there yet: the node makes it at its first start"),
                ),
                Err(why) => {
                    let folder = self.config.store.data_dir.display();
                    let fix = format!("give the node's user the right to write in {folder}");
                    Line::failed(
                        "store",
                        format!("{at} is not there and can't be made: {why}"),
                        fix,
                    )
                }
            },
        }
    }

    /// Meta's verification request, as Meta would make it.
    pub(super) async fn public_url(&self) -> Line {
        const IS: &str = "public_url";
        let Some(base) = &self.config.public.base_url else {
            let fix = "set [public].base_url to the https URL that Meta reaches the node by";
            let what =
                "[public].base_url is not set: callbacks' links and Meta's webhook URL are unknown";
            return if self.simulated {
                Line::warning(IS, what, fix)
            } else {
                Line::failed(IS, what, fix)
            };
        };
        if base.scheme() != "https" && !self.simulated {
            let fix =
                "put a certificate in front of the node (a reverse proxy), and name the https URL";
            return Line::failed(
                IS,
                format!("{base} is not https: Meta sends no webhook there"),
                fix,
            );
        }
        if let Some(ip) = host_ip(base).filter(|ip| !is_public(*ip) && !self.simulated) {
            let fix = "name a host that Meta can reach";
            return Line::failed(IS, format!("{base} is at {ip}, which is not public"), fix);
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("hub.mode", "subscribe")
            .append_pair("hub.verify_token", self.config.meta.verify_token.reveal())
            .append_pair("hub.challenge", CHALLENGE)
            .finish();
        let door = format!("{}/webhooks/meta", base.as_str().trim_end_matches('/'));
        match self.get(&format!("{door}?{query}")).await {
            Ok((200, body)) if body == CHALLENGE => {
                let tls = if base.scheme() == "https" { ", its certificate is good," } else { "" };
                Line::ok(IS, format!("{door} answers{tls} and knows the verify token"))
            }
            Ok((403, _)) => {
                let fix = "the node there has another [meta].verify_token: reload it, or point the URL at the right one";
                Line::failed(IS, format!("{door} does not know the verify token"), fix)
            }
            Ok((status, _)) => {
                let fix = "is it the node that answers there? A proxy must hand /webhooks/meta on as it is";
                Line::failed(
                    IS,
                    format!("{door} answered {status} to Meta's verification request"),
                    fix,
                )
            }
            Err(why) => {
                let fix = if why.contains("certificate") {
                    "renew the certificate, and serve its whole chain"
                } else {
                    "start the node; open its port; check the proxy and the name's DNS entry"
                };
                Line::failed(IS, format!("{door} can't be asked from here: could not {why}"), fix)
            }
        }
    }

    /// How long the certificate is good; none where there is none, or it can't be seen (`public_url` says so).
    pub(super) async fn certificate(&self) -> Option<Line> {
        let base = self.config.public.base_url.as_ref().filter(|base| base.scheme() == "https")?;
        let url = self.egress.url(base.as_str()).ok()?;
        let shown = self.egress.certificate(&url, WITHIN).await.ok()?;
        Some(certificate::line(&shown, self.clock.wall()).of(base.host_str().unwrap_or_default()))
    }

    async fn get(&self, url: &str) -> Result<(u16, String), String> {
        let url = self.egress.url(url).map_err(|refusal| refusal.to_string())?;
        let ask = EgressRequest {
            method: Method::GET,
            url: &url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            connect: WITHIN,
            read: WITHIN,
            body_policy: BodyPolicy::OnSuccess { max: 4_096 },
        };
        let asked = tokio::time::timeout(WITHIN, self.egress.request(ask)).await;
        let answer = asked
            .unwrap_or(Err(EgressError::ReadTimeout { waited: WITHIN }))
            .map_err(|e| e.to_string())?;
        Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    }
}

fn host_ip(url: &url::Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        url::Host::Domain(_) => None,
    }
}

/// Whether a file can be made in a folder, or in the first folder above that is there.
fn writable(folder: &std::path::Path) -> std::io::Result<()> {
    let here = if folder.as_os_str().is_empty() { std::path::Path::new(".") } else { folder };
    let there =
        here.ancestors().find(|folder| folder.exists()).unwrap_or(std::path::Path::new("."));
    let probe = there.join(format!(".offhook-doctor-{}", std::process::id()));
    std::fs::File::create(&probe)?;
    std::fs::remove_file(probe)
}

/// The first media port: free, or taken (by the node, if it runs).
pub(super) fn media_port(listen: &Listen) -> Line {
    let at = listen.media;
    let ports = listen.media_ports;
    if at.port() == 0 {
        let fix = "name a port in [listen].media: a firewall can open it only then";
        return Line::warning("media", "media ports are chosen by the system at each start", fix);
    }
    let last = u32::from(at.port()) + u32::from(ports) - 1;
    let open = format!("open UDP {} to {last} to the internet, both ways", at.port());
    match UdpSocket::bind(SocketAddr::new(at.ip(), at.port())) {
        Ok(_) => Line::ok("media", format!("UDP {at} is free; {open}")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            Line::ok("media", format!("UDP {at} is in use, by the node if it runs; {open}"))
        }
        Err(e) => Line::failed(
            "media",
            format!("UDP {at} can't be had: {e}"),
            "name an address of this machine in [listen].media",
        ),
    }
}

/// The addresses that Meta is told to send sound to.
pub(super) fn advertised(media_ips: &[IpAddr], bound: IpAddr, simulated: bool) -> Line {
    const IS: &str = "media";
    let fix = "set [public].media_ips to the address that this machine has on the internet";
    if simulated {
        return Line::ok(IS, "Meta is simulated on this machine: any address will do");
    }
    let private = |ips: &[IpAddr]| ips.iter().all(|ip| !is_public(*ip));
    let shown = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    match media_ips {
        [] if bound.is_unspecified() => {
            let what = "[public].media_ips is not set: this machine's own addresses are advertised, which behind NAT nobody reaches";
            Line::warning(IS, what, fix)
        }
        [] if private(&[bound]) => {
            Line::failed(IS, format!("sound is asked for at {bound}, which Meta can't reach"), fix)
        }
        [] => Line::ok(IS, format!("sound is asked for at {bound}")),
        ips if private(ips) => Line::failed(
            IS,
            format!("sound is asked for at {}, which Meta can't reach", shown(ips)),
            fix,
        ),
        ips => Line::ok(IS, format!("sound is asked for at {}", shown(ips))),
    }
}
