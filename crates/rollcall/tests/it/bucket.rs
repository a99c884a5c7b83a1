//! An object store on this machine that speaks S3: `s3s-fs` on a directory, its puts one at a time,
//! since its own check of `If-None-Match` and the write that follows are two steps.

use std::{net::SocketAddr, path::Path, sync::Arc};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, runtime::Runtime, sync::Mutex};

const KEY: &str = "rollcall";
const SECRET: &str = "not-a-secret";

/// A bucket called `rollcall-test`, for as long as this lives.
pub(crate) struct Bucket {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Bucket {
    pub(crate) fn start(directory: &Path) -> Self {
        let root = directory.join("s3");
        std::fs::create_dir_all(root.join("rollcall-test")).expect("a directory for the bucket");
        let files = FileSystem::new(&root).expect("a store");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port");
        let address = listener.local_addr().expect("an address");
        let putting = Arc::new(Mutex::new(()));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, putting) = (service.clone(), putting.clone());
                let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let (service, putting) = (service.clone(), putting.clone());
                    async move {
                        let _one_at_a_time = match *request.method() == hyper::Method::PUT {
                            true => Some(putting.lock().await),
                            false => None,
                        };
                        service.call(request.map(s3s::Body::from)).await
                    }
                });
                tokio::spawn(async move {
                    // A client that went away.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { address, _runtime: runtime }
    }

    /// The lake's address in it.
    pub(crate) fn url(&self) -> String {
        "s3://rollcall-test/lake".to_owned()
    }

    /// What a client needs to know, by the names that Amazon's own tools use.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}
