//! The floor: a tunnel that opens one TLS connection for each client, with tokio and rustls and
//! nothing else. It does not route, share links, observe or record. What it reaches, the libraries
//! give to anyone.

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    side: Side,
    /// Address to listen on
    listen: SocketAddr,
    /// Address to connect to for each client
    target: SocketAddr,
    /// Directory of the certificates
    certificates: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    /// Accepts clients, connects with TLS
    Client,
    /// Accepts TLS, connects to the server
    Server,
}

#[derive(Clone)]
enum Tls {
    Client(TlsConnector),
    Server(TlsAcceptor),
}

const BUFFER: usize = 64 * 1024;

pub(crate) fn run(args: &Args) -> Result<()> {
    let tls = Tls::load(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(serve(args, tls))
}

async fn serve(args: &Args, tls: Tls) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| args.listen.to_string())?;
    loop {
        let (accepted, _) = listener.accept().await?;
        let tunnel = tunnel(accepted, args.target, tls.clone());
        // A connection that fails is closed; the load reports it.
        tokio::spawn(async move { drop(tunnel.await) });
    }
}

async fn tunnel(mut accepted: TcpStream, target: SocketAddr, tls: Tls) -> Result<()> {
    accepted.set_nodelay(true)?;
    match tls {
        Tls::Client(tls) => {
            let connected = TcpStream::connect(target).await?;
            connected.set_nodelay(true)?;
            let name = ServerName::try_from("localhost")?;
            let mut connected = tls.connect(name, connected).await?;
            copy_bidirectional_with_sizes(&mut accepted, &mut connected, BUFFER, BUFFER).await?;
        }
        Tls::Server(tls) => {
            let mut accepted = tls.accept(accepted).await?;
            let mut connected = TcpStream::connect(target).await?;
            connected.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut accepted, &mut connected, BUFFER, BUFFER).await?;
        }
    }
    Ok(())
}

impl Tls {
    fn load(args: &Args) -> Result<Self> {
        let file = |name: &str| args.certificates.join(name);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.crt"))?)?;
        let roots = Arc::new(roots);
        let credentials = |side: &str| -> Result<_> {
            let certificate = CertificateDer::from_pem_file(file(&format!("{side}.crt")))?;
            let key = PrivateKeyDer::from_pem_file(file(&format!("{side}.key")))?;
            Ok((vec![certificate], key))
        };
        Ok(match args.side {
            Side::Client => {
                let (chain, key) = credentials("client")?;
                let config = ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_client_auth_cert(chain, key)?;
                Self::Client(Arc::new(config).into())
            }
            Side::Server => {
                let (chain, key) = credentials("server")?;
                let config = ServerConfig::builder()
                    .with_client_cert_verifier(WebPkiClientVerifier::builder(roots).build()?)
                    .with_single_cert(chain, key)?;
                Self::Server(Arc::new(config).into())
            }
        })
    }
}
