//! TLS 1.3 records sealed and opened in place (RFC 8446 section 5).
//!
//! rustls does the handshake, the certificates and the key schedule; what is left of TLS afterwards
//! is this: the same part that kernel TLS would do, kept in user space. Working on the buffer that
//! the socket is read into and written from saves the copies a buffered TLS stream needs, which on
//! bulk streams are worth more than the cipher itself.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::{
    ConnectionTrafficSecrets, ExtractedSecrets, client::ClientConnectionData,
    kernel::KernelConnection, server::ServerConnectionData,
};
use std::ops::Range;

/// Bytes before a record's plaintext: type, legacy version, length.
pub(super) const HEAD: usize = 5;
/// Bytes behind a record's plaintext: inner content type and the AEAD tag.
pub(super) const TAIL: usize = 1 + TAG;
/// Most plaintext in one record (RFC 8446 section 5.1).
pub(super) const MAX_PLAIN: usize = 16_384;

const TAG: usize = 16;
/// Most ciphertext in one record: plaintext + 256 (RFC 8446 section 5.2).
const MAX_CIPHER: usize = MAX_PLAIN + 256;
/// Records sealed with one key before it is updated. AES-GCM allows 2^24.5 full records
/// (RFC 8446 section 5.5); half of 2^24 leaves room for everything already queued.
const RECORDS_PER_KEY: u64 = 1 << 23;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Content type of application data.
pub(super) const APPLICATION: u8 = 23;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Why a record could not be sealed or opened. All of them end the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The peer's record is not TLS at all, or not TLS 1.3.
    #[error("not a TLS record: content type {0}")]
    NotTls(u8),
    /// Longer than the standard allows.
    #[error("TLS record of {0} bytes is over the limit of {MAX_CIPHER}")]
    TooLong(usize),
    /// Authentication failed: corrupted, replayed or forged.
    #[error("TLS record {0} does not authenticate")]
    Forged(u64),
    /// A post-handshake message that this protocol has no use for.
    #[error("unexpected TLS handshake message {0} after the handshake")]
    Unexpected(u8),
    /// The peer ended the session with an alert.
    #[error("TLS alert {0} from the peer")]
    Alert(u8),
    /// A record without a content type, or a malformed inner message.
    #[error("malformed TLS record")]
    Malformed,
    /// Key material rustls handed over that the AEAD refuses.
    #[error("TLS keys are not usable: {0}")]
    Keys(&'static str),
    /// rustls could not derive the next key.
    #[error("TLS key update failed")]
    Update(#[source] rustls::Error),
}

struct Cipher {
    key: LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    seq: u64,
}

impl Cipher {
    fn new((seq, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&aead::CHACHA20_POLY1305, key, iv)
            }
            _ => return Err(RecordError::Keys("unknown cipher suite")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref())
            .map_err(|_| RecordError::Keys("key length does not fit the cipher"))?;
        let iv = iv
            .as_ref()
            .try_into()
            .map_err(|_| RecordError::Keys("initialization vector is not 96 bits"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv,
            seq,
        })
    }

    /// The sequence number is XORed into the vector (RFC 8446 section 5.3), so no nonce repeats.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, seq) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= seq;
        }
        self.seq += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

enum KeySchedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordContent {
    /// Application data at this range of the buffer.
    Data(Range<usize>),
    /// A record of the TLS layer itself; nothing for the application.
    Nothing,
    /// The peer closed its direction in order (close_notify).
    Closed,
}

/// The record layer of one established connection.
pub(crate) struct RecordLayer {
    seal: Cipher,
    open: Cipher,
    kernel: KeySchedule,
    /// A key update of ours has to be announced before the next record.
    update_due: bool,
}

impl std::fmt::Debug for RecordLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("sealed", &self.seal.seq)
            .field("opened", &self.open.seq)
            .finish()
    }
}

impl RecordLayer {
    /// Takes over where a client's handshake ended.
    pub(crate) fn client(
        (secrets, kernel): (ExtractedSecrets, KernelConnection<ClientConnectionData>),
    ) -> Result<Self, RecordError> {
        Self::new(secrets, KeySchedule::Client(kernel))
    }

    /// Takes over where a server's handshake ended.
    pub(crate) fn server(
        (secrets, kernel): (ExtractedSecrets, KernelConnection<ServerConnectionData>),
    ) -> Result<Self, RecordError> {
        Self::new(secrets, KeySchedule::Server(kernel))
    }

    fn new(secrets: ExtractedSecrets, kernel: KeySchedule) -> Result<Self, RecordError> {
        Ok(Self {
            seal: Cipher::new(secrets.tx)?,
            open: Cipher::new(secrets.rx)?,
            kernel,
            update_due: false,
        })
    }

    /// Seals one record in place. `record` is HEAD + plaintext + TAIL bytes; the plaintext may be
    /// up to [`MAX_PLAIN`] bytes.
    pub(crate) fn seal(&mut self, record: &mut [u8], content: u8) -> Result<(), RecordError> {
        let plain = record
            .len()
            .checked_sub(HEAD + TAIL)
            .ok_or(RecordError::Malformed)?;
        if plain > MAX_PLAIN {
            return Err(RecordError::TooLong(plain));
        }
        let length = u16::try_from(plain + TAIL).map_err(|_| RecordError::TooLong(plain))?;
        let (head, body) = record.split_at_mut(HEAD);
        let [hi, lo] = length.to_be_bytes();
        head.copy_from_slice(&[APPLICATION, 3, 3, hi, lo]);
        let (body, tag) = body.split_at_mut(plain + 1);
        body[plain] = content;
        let nonce = self.seal.next_nonce();
        let sealed = self
            .seal
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&*head), body)
            .map_err(|_| RecordError::Keys("sealing failed"))?;
        tag.copy_from_slice(sealed.as_ref());
        if self.seal.seq >= RECORDS_PER_KEY {
            self.update_due = true;
        }
        Ok(())
    }

    /// A record to be sent before anything else, if one is due: the announcement of our next key,
    /// after which the next key is in use.
    pub(crate) fn due(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        if !std::mem::take(&mut self.update_due) {
            return Ok(None);
        }
        // update_not_requested: the peer's key has its own count.
        let record = self.small(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])?;
        let next = match &mut self.kernel {
            KeySchedule::Client(kernel) => kernel.update_tx_secret(),
            KeySchedule::Server(kernel) => kernel.update_tx_secret(),
        };
        self.seal = Cipher::new(next.map_err(RecordError::Update)?)?;
        self.update_due = false;
        Ok(Some(record))
    }

    /// The record that closes our direction in order.
    pub(crate) fn close_notify(&mut self) -> Result<Vec<u8>, RecordError> {
        self.small(ALERT, &[1, 0])
    }

    fn small(&mut self, content: u8, plain: &[u8]) -> Result<Vec<u8>, RecordError> {
        let mut record = vec![0; HEAD];
        record.extend_from_slice(plain);
        record.resize(HEAD + plain.len() + TAIL, 0);
        self.seal(&mut record, content)?;
        Ok(record)
    }

    /// Opens the first record of `buf` in place. `None`: the record is not complete yet. Otherwise
    /// the bytes it took and what it was; ranges are relative to `buf`.
    pub(crate) fn open(
        &mut self,
        buf: &mut [u8],
    ) -> Result<Option<(usize, RecordContent)>, RecordError> {
        let Some(&[content, _, _, hi, lo]) = buf.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([hi, lo]));
        if !matches!(content, APPLICATION | CHANGE_CIPHER_SPEC | ALERT) {
            return Err(RecordError::NotTls(content));
        }
        if length > MAX_CIPHER {
            return Err(RecordError::TooLong(length));
        }
        let end = HEAD + length;
        let Some(record) = buf.get_mut(..end) else {
            return Ok(None);
        };
        match content {
            // Middlebox compatibility (RFC 8446 appendix D.4): carries nothing.
            CHANGE_CIPHER_SPEC => return Ok(Some((end, RecordContent::Nothing))),
            ALERT => return Err(RecordError::Alert(record.last().copied().unwrap_or(0))),
            _ => {}
        }
        let (head, body) = record.split_at_mut(HEAD);
        let seq = self.open.seq;
        let nonce = self.open.next_nonce();
        let plain = self
            .open
            .key
            .open_in_place(nonce, Aad::from(&*head), body)
            .map_err(|_| RecordError::Forged(seq))?;
        // Zero padding goes behind the inner content type.
        let last = plain
            .iter()
            .rposition(|&b| b != 0)
            .ok_or(RecordError::Malformed)?;
        let (inner, data) = (plain[last], &plain[..last]);
        match inner {
            APPLICATION => Ok(Some((end, RecordContent::Data(HEAD..HEAD + last)))),
            ALERT => match data {
                [_, 0] => Ok(Some((end, RecordContent::Closed))),
                [_, code] => Err(RecordError::Alert(*code)),
                _ => Err(RecordError::Malformed),
            },
            HANDSHAKE => {
                let message = data.to_vec();
                self.handshake(&message)?;
                Ok(Some((end, RecordContent::Nothing)))
            }
            other => Err(RecordError::NotTls(other)),
        }
    }

    fn handshake(&mut self, mut messages: &[u8]) -> Result<(), RecordError> {
        while let Some((&[kind, a, b, c], rest)) = messages.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let (body, rest) = rest
                .split_at_checked(length)
                .ok_or(RecordError::Malformed)?;
            messages = rest;
            match (kind, body) {
                // Links live for days: resumption would save nothing worth keeping tickets for.
                (NEW_SESSION_TICKET, _) => {}
                (KEY_UPDATE, [request @ (0 | 1)]) => {
                    let next = match &mut self.kernel {
                        KeySchedule::Client(kernel) => kernel.update_rx_secret(),
                        KeySchedule::Server(kernel) => kernel.update_rx_secret(),
                    };
                    self.open = Cipher::new(next.map_err(RecordError::Update)?)?;
                    self.update_due |= *request == 1;
                }
                (KEY_UPDATE, _) => return Err(RecordError::Malformed),
                (other, _) => return Err(RecordError::Unexpected(other)),
            }
        }
        if messages.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Malformed)
        }
    }

    /// Asks for a key update before the next record, as the record limit would.
    #[cfg(test)]
    pub(super) fn force_update(&mut self) {
        self.update_due = true;
    }
}

#[cfg(test)]
mod tests;
