import Bytes
import COpenSSL
import CTLS
import Crypto
import Glibc
import Reactor

/// How far a handshake has come.
public enum HandshakeStep: Sendable {
    case done(TLSPeer)
    /// Call again when the descriptor is readable.
    case wantsInput
    /// Call again when the descriptor is writable.
    case wantsOutput
    /// It is over. The other side has been told why, if the socket took it.
    case failed(TLSFailure)
}

/// One TLS connection over a non-blocking socket, which its owner keeps, watches (level-triggered) and closes. One thread at a time.
@safe public final class SecureConnection: @unchecked Sendable {
    /// Calls to receive within one `receive`: others have their turn then.
    static let receivesPerTurn: Int32 = 32
    /// Records that are decrypted within one `receive`, however short they are.
    static let recordsPerTurn = 128
    /// Bytes of a record (RFC 8446 §5.1).
    public static let recordSize = 16384
    /// Fresh keys (RFC 8446 §4.6.3) that the other side may ask for, beside one for each MiB it sends.
    static let spareKeyUpdates: UInt64 = 16
    /// Of them, those that are taken within one `receive`.
    static let keyUpdatesPerTurn: Int32 = 16

    private let connection: OpaquePointer
    private let stream: UnsafeMutablePointer<tls_stream>
    private let side: Side

    private enum Side {
        case server(ServerContext)
        case client(ClientContext)
    }

    private enum State {
        /// Nothing has been received.
        case fresh
        case shakingHands, established
        /// The other side has said its last word.
        case ended
        case broken(TLSFailure)
    }
    private var state = State.fresh

    /// The identity whose key was last asked for, and whether somebody knew it.
    private var presented: (identity: [UInt8], isKnown: Bool)?
    private var lookups = 0

    /// Small pieces of the record that is being sent; while it waits, it stays where it is.
    private var gathered: UnsafeMutablePointer<UInt8>?
    /// What OpenSSL has encrypted and not sent to its end: it wants the same again.
    private var pending: Piece?
    private struct Piece {
        let count: Int
        let isGathered: Bool
    }

    private var isFinished = false

    /// Bytes of plaintext that were copied to fill records, and calls of the kernel, so far.
    package private(set) var copied = 0
    package var systemCalls: (receive: UInt64, send: UInt64) { unsafe (stream.pointee.receive_calls, stream.pointee.send_calls) }

    /// False: OpenSSL may hold more than was taken, of which epoll knows nothing. Call `receive` again, without waiting.
    public private(set) var isDrained = true

    public convenience init(accepting context: ServerContext, descriptor: Int32) {
        unsafe self.init(context.context, .server(context), descriptor)
        unsafe SSL_set_accept_state(connection)
    }

    public convenience init(connecting context: ClientContext, descriptor: Int32) {
        unsafe self.init(context.context, .client(context), descriptor)
        unsafe SSL_set_connect_state(connection)
        if let name = context.serverName {
            var text = Array(name.utf8CString)
            _ = unsafe SSL_ctrl(connection, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), &text)
        }
    }

    private init(_ context: OpaquePointer, _ side: Side, _ descriptor: Int32) {
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: tls_stream())
        unsafe stream.pointee.descriptor = descriptor
        guard let connection = unsafe SSL_new(context), unsafe tls_stream_attach(connection, stream) == 1 else {
            preconditionFailure("there is memory for a connection")
        }
        unsafe self.connection = connection
        self.side = side
        _ = unsafe SSL_set_ex_data(connection, 0, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit {
        unsafe SSL_free(connection)
        unsafe free(stream.pointee.ahead)
        unsafe stream.deallocate()
        releaseGathered()
    }

    /// The one that C calls about.
    @unsafe static func of(_ connection: OpaquePointer?) -> SecureConnection? {
        guard let connection = unsafe connection, let found = unsafe SSL_get_ex_data(connection, 0) else { return nil }
        return unsafe Unmanaged<SecureConnection>.fromOpaque(found).takeUnretainedValue()
    }

    // What tests have a peer do.
    func speakOnlyTLS12() { _ = unsafe SSL_ctrl(connection, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(TLS1_2_VERSION), nil) }
    /// - Parameter ofBoth: the other side is asked for one, too
    func takeFreshKey(ofBoth: Bool = true) {
        begin(receives: 0)
        _ = unsafe SSL_key_update(connection, ofBoth ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(connection) == 1
        end()
    }
    func behaveAsIfTheKernelSent() { unsafe stream.pointee.is_kernel_sending = true }

    // MARK: Handshake

    /// Goes on with the handshake as far as the socket allows. It may block in the context's closures, nowhere else.
    public func handshake() -> HandshakeStep {
        switch state {
        case .fresh:
            if case .server = side, let step = lookAtFirstByte() { return step }
            state = .shakingHands
        case .shakingHands: break
        case .established: return .done(peer())
        case .ended: return .failed(.closed(nil))
        case .broken(let failure): return .failed(failure)
        }
        begin(receives: Int32.max)
        defer { end() }
        let result = unsafe SSL_do_handshake(connection)
        guard result != 1 else { return finishHandshake() }
        switch unsafe SSL_get_error(connection, result) {
        case SSL_ERROR_WANT_READ: return .wantsInput
        case SSL_ERROR_WANT_WRITE: return .wantsOutput
        case let error: return .failed(breakOff(error))
        }
    }

    /// Whether it is a handshake at all: clear iSCSI gets no TLS alert for an answer.
    private func lookAtFirstByte() -> HandshakeStep? {
        var first = [UInt8](repeating: 0, count: 1)
        switch unsafe Socket.peek(stream.pointee.descriptor, into: &first, 0..<1) {
        case .wouldBlock: return .wantsInput
        case .closed(let error):
            state = .broken(.closed(error))
            return .failed(.closed(error))
        case .received:
            // ContentType handshake (RFC 8446 §5.1).
            guard first[0] != 22 else { return nil }
            state = .broken(.notTLS)
            return .failed(.notTLS)
        }
    }

    private func finishHandshake() -> HandshakeStep {
        // A pre-shared key stays in the session, which nobody resumes: what is left of it is wiped.
        if isBySharedKey, let session = unsafe SSL_get_session(connection) {
            let nothing = [UInt8](repeating: 0, count: PreSharedKey.lengths.upperBound)
            _ = unsafe SSL_SESSION_set1_master_key(session, nothing, nothing.count)
        }
        let peer = peer()
        if case .server(let context) = side, context.material.clientAuthentication == .required, peer.identity == .nobody {
            state = .broken(.noIdentity)
            return .failed(.noIdentity)
        }
        state = .established
        // The last flight may have brought data with it.
        isDrained = !holdsInput
        return .done(peer)
    }

    private var isBySharedKey: Bool { unsafe SSL_session_reused(connection) == 1 }

    private func peer() -> TLSPeer {
        let version: TLSPeer.Version = unsafe SSL_version(connection) == TLS1_3_VERSION ? .tls13 : .tls12
        let cipher = unsafe SSL_get_current_cipher(connection).flatMap { unsafe SSL_CIPHER_get_name($0) }.map { unsafe String(cString: $0) } ?? "none"
        return unsafe TLSPeer(identity: identity(), version: version, cipher: cipher, usesKernelTLS: stream.pointee.is_kernel_sending)
    }

    private func identity() -> TLSPeer.Identity {
        // There are no tickets: what is resumed is an external key.
        if isBySharedKey, let presented { return .preSharedKey(identity: presented.identity) }
        guard let shown = unsafe SSL_get0_peer_certificate(connection), unsafe SSL_get_verify_result(connection) == X509_V_OK,
            let certificate = unsafe Certificate(der: encoding(shown))
        else { return .nobody }
        return .certificate(
            fingerprint: certificate.fingerprint, uris: certificate.uris, subject: certificate.subject, notAfter: certificate.notAfter)
    }

    // MARK: Pre-shared keys

    @unsafe func findPreSharedKey(_ identity: [UInt8]) -> OpaquePointer? {
        guard case .server(let context) = side, lookups < PreSharedKey.mostLookups, identity.count <= PreSharedKey.mostIdentity else { return nil }
        lookups += 1
        let key = context.preSharedKey(identity)
        presented = (identity, key != nil)
        return unsafe key.flatMap { unsafe PreSharedKey.session($0, for: connection) }
    }

    /// - Parameter digest: of the suite that a repeated hello is for; nil: any
    @unsafe func usePreSharedKey(
        _ digest: OpaquePointer?, _ identity: UnsafeMutablePointer<UnsafePointer<UInt8>?>?, _ length: UnsafeMutablePointer<Int>?,
        _ session: UnsafeMutablePointer<OpaquePointer?>?
    ) {
        unsafe session?.pointee = nil
        guard case .client(let context) = side, case .preSharedKey(let name, let key) = context.identity else { return }
        if let digest = unsafe digest, unsafe EVP_MD_is_a(digest, "SHA256") != 1 { return }
        guard let made = unsafe PreSharedKey.session(key, for: connection) else { return }
        presented = (name, true)
        // OpenSSL copies the identity after this call: the context keeps it.
        unsafe identity?.pointee = UnsafePointer(context.presharedName)
        unsafe length?.pointee = name.count
        unsafe session?.pointee = made
    }

    // MARK: Data

    /// Decrypts into `array` at `range`, which is not empty, as much as there is and fits.
    public func receive(into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult { take(into: &array, range, isPeek: false) }

    /// Decrypts into the bytes of `buffer` in `range`, which is not empty, as much as there is and fits.
    public func receive(into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult {
        precondition(!range.isEmpty)
        return unsafe take(into: buffer.address(of: range), range.count, isPeek: false)
    }

    /// What `receive` would give, at most a record of it; it stays to be received.
    public func peek(into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult { take(into: &array, range, isPeek: true) }

    private func take(into array: inout [UInt8], _ range: Range<Int>, isPeek: Bool) -> ReceiveResult {
        precondition(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= array.count)
        return unsafe array.withUnsafeMutableBytes { unsafe take(into: $0.baseAddress! + range.lowerBound, range.count, isPeek: isPeek) }
    }

    @unsafe private func take(into start: UnsafeMutableRawPointer, _ room: Int, isPeek: Bool) -> ReceiveResult {
        switch state {
        case .established: break
        case .broken(.closed(let error)): return .closed(error)
        case .broken: return .closed(SystemError("TLS", EPROTO))
        case .fresh, .shakingHands, .ended: return .closed(nil)
        }
        begin(receives: Self.receivesPerTurn)
        defer { end() }
        var taken = 0
        var reads = 0
        var result: Int32 = 1
        while result == 1, taken < room, !isPeek || taken == 0, reads < Self.recordsPerTurn {
            var count = 0
            reads += 1
            result = unsafe isPeek ? SSL_peek_ex(connection, start + taken, room - taken, &count) : SSL_read_ex(connection, start + taken, room - taken, &count)
            if result == 1 { taken += count }
        }
        // Part of a record may lie in OpenSSL: that is nothing to go on with. Many fresh keys alone leave something in front of it.
        isDrained = result == 1 ? !isPeek && !holdsInput : unsafe stream.pointee.ahead_count == 0
        if result != 1 {
            switch unsafe SSL_get_error(connection, result) {
            // To receive never waits for sending: a fresh key is confirmed when something is sent next.
            case SSL_ERROR_WANT_READ: break
            case SSL_ERROR_ZERO_RETURN: state = .ended
            case let error: _ = breakOff(error)
            }
        }
        checkKeyUpdates()
        switch state {
        case .established: return taken > 0 ? .received(taken) : .wouldBlock
        default:
            // What came before the end counts; the end is told next time.
            guard taken == 0 else {
                isDrained = false
                return .received(taken)
            }
            return unsafe take(into: start, room, isPeek: isPeek)
        }
    }

    /// A flood of fresh keys is all work for nobody's data. And a fresh key of ours is due before the next data (RFC 8446 §4.6.3), but
    /// the kernel keeps the one that OpenSSL gave it: with that the other side could decrypt nothing more.
    private func checkKeyUpdates() {
        guard case .established = state else { return }
        let (updates, received) = unsafe (stream.pointee.key_updates, stream.pointee.received)
        if updates > Self.spareKeyUpdates + received >> 20 { state = .broken(.protocolError("too many key updates")) }
        if unsafe stream.pointee.is_kernel_sending && stream.pointee.is_asked_for_fresh_key {
            sayGoodbye()
            state = .broken(.kernelKeepsKey)
        }
    }

    /// Encrypts and sends from the front of `queue` what the kernel takes, and takes it out of the queue.
    ///
    /// A segment that fills records goes into them from where it lies; smaller ones that follow each other are gathered.
    public func send(_ queue: inout OutputQueue) -> SendResult {
        guard case .established = state else { return .closed(sendError) }
        begin(receives: Self.receivesPerTurn)
        defer { end() }
        while !queue.isEmpty {
            let piece = pending ?? choosePiece(queue)
            unsafe stream.pointee.more_follows = queue.byteCount > piece.count
            var written = 0
            let result = unsafe SSL_write_ex(connection, start(of: piece, queue), piece.count, &written)
            guard result == 1 else {
                switch unsafe SSL_get_error(connection, result) {
                case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE:
                    pending = piece
                    return .wouldBlock
                case let error:
                    _ = breakOff(error)
                    return .closed(sendError)
                }
            }
            pending = nil
            queue.consume(written)
        }
        releaseGathered()
        return .done
    }

    /// What goes into the next record.
    private func choosePiece(_ queue: OutputQueue) -> Piece {
        let segments = queue.segments
        let first = segments[segments.startIndex].range.count
        let fitting = segments.prefix { $0.range.count < Self.recordSize }
        guard fitting.count > 1 else { return Piece(count: min(first, Self.recordSize), isGathered: false) }
        let start = unsafe gathered ?? .allocate(capacity: Self.recordSize)
        unsafe gathered = start
        var count = 0
        for segment in fitting {
            let taken = min(segment.range.count, Self.recordSize - count)
            let source = unsafe segment.buffer.address(of: segment.range)
            unsafe (start + count).update(from: source.assumingMemoryBound(to: UInt8.self), count: taken)
            count += taken
            if count == Self.recordSize { break }
        }
        copied += count
        return Piece(count: count, isGathered: true)
    }

    @unsafe private func start(of piece: Piece, _ queue: OutputQueue) -> UnsafeRawPointer {
        if piece.isGathered, let gathered = unsafe gathered { return UnsafeRawPointer(gathered) }
        let segments = queue.segments
        let first = segments[segments.startIndex]
        return unsafe UnsafeRawPointer(first.buffer.address(of: first.range))
    }

    private func releaseGathered() {
        unsafe gathered?.deallocate()
        unsafe gathered = nil
    }

    /// Tells the other side that nothing more comes (RFC 8446 §6.1), if the socket takes it now.
    public func finish() {
        guard case .established = state else { return }
        begin(receives: 0)
        defer { end() }
        sayGoodbye()
    }

    private func sayGoodbye() {
        guard !isFinished else { return }
        isFinished = true
        _ = unsafe SSL_shutdown(connection)
        ERR_clear_error()
    }

    // MARK: Trust

    /// Whether a server with `context` would still believe the other side's certificate: at this time, by these authorities and
    /// revocation lists. Who showed none is judged by whether one may do that; a pre-shared key by whether there are any (whether this
    /// one is still known, its keeper knows).
    public func isStillTrusted(by context: ServerContext) -> Bool {
        switch identity() {
        case .nobody: return context.material.clientAuthentication != .required
        case .preSharedKey: return context.material.takesPreSharedKeys
        case .certificate:
            guard let own = unsafe SSL_get0_peer_certificate(connection), let verification = unsafe X509_STORE_CTX_new_ex(TLSLibrary.context, nil)
            else { return false }
            defer {
                unsafe X509_STORE_CTX_free(verification)
                ERR_clear_error()
            }
            guard unsafe X509_STORE_CTX_init(verification, SSL_CTX_get_cert_store(context.context), own, SSL_get_peer_cert_chain(connection)) == 1,
                unsafe X509_STORE_CTX_set_default(verification, "ssl_client") == 1
            else { return false }
            let conditions = unsafe X509_STORE_CTX_get0_param(verification)
            unsafe X509_VERIFY_PARAM_set_auth_level(conditions, TLSPolicy.securityLevel)
            unsafe X509_VERIFY_PARAM_set_depth(conditions, TLSPolicy.mostIntermediates)
            return unsafe X509_verify_cert(verification) == 1
        }
    }

    // MARK: Ends

    /// Why it broke; nil: it has not.
    public var failure: TLSFailure? { if case .broken(let failure) = state { failure } else { nil } }

    private var sendError: SystemError {
        switch state {
        case .broken(.closed(let error?)): error
        case .broken(.closed(nil)), .ended: SystemError("send", EPIPE)
        default: SystemError("TLS", EPROTO)
        }
    }

    /// - Parameter error: of SSL_get_error(3)
    private func breakOff(_ error: Int32) -> TLSFailure {
        let failure = judge(error)
        state = .broken(failure)
        pending = nil
        releaseGathered()
        return failure
    }

    private func judge(_ error: Int32) -> TLSFailure {
        let code = unsafe stream.pointee.error
        var reasons: [(library: Int32, reason: Int32)] = []
        while case let next = ERR_get_error(), next != 0 { reasons.append((ERR_GET_LIB(next), ERR_GET_REASON(next))) }
        if code != 0 { return .closed(SystemError("recv or send", code)) }
        if error == SSL_ERROR_ZERO_RETURN { return .closed(nil) }
        if reasons.contains(where: { $0.library == TLS_LIBRARY_OF_REFUSALS }) { return .notSigned }
        guard let reason = reasons.first(where: { $0.library == ERR_LIB_SSL })?.reason else { return .closed(nil) }
        switch reason {
        case SSL_R_UNEXPECTED_EOF_WHILE_READING: return .closed(nil)
        case SSL_R_CERTIFICATE_VERIFY_FAILED: return certificateFailure
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_WRONG_VERSION_NUMBER, SSL_R_VERSION_TOO_LOW, SSL_R_WRONG_SSL_VERSION: return .version
        case SSL_R_BINDER_DOES_NOT_VERIFY: return .wrongPreSharedKey(identity: presented?.identity ?? [])
        case SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS,
            SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
            if let presented, !presented.isKnown { return .unknownPreSharedKey(identity: presented.identity) }
            return reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? .noIdentity : .nothingInCommon
        // An alert that was received (SSL_AD_REASON_OFFSET).
        case 1000...1255: return .alert(UInt8(reason - 1000))
        default: return .protocolError(Self.words(for: reason))
        }
    }

    /// OpenSSL's words for a reason of libssl.
    private static func words(for reason: Int32) -> String {
        // ERR_PACK is a macro.
        let code = UInt(ERR_LIB_SSL) << 23 | UInt(reason)
        guard let text = unsafe ERR_reason_error_string(code) else { return "reason \(reason)" }
        return unsafe String(cString: text)
    }

    private var certificateFailure: TLSFailure {
        if case .client(let context) = side, context.trust == .preSharedKey { return .unknownPreSharedKey(identity: presented?.identity ?? []) }
        let result = unsafe Int32(SSL_get_verify_result(connection))
        switch result {
        case X509_V_ERR_CERT_HAS_EXPIRED: return .certificate(.expired)
        case X509_V_ERR_CERT_NOT_YET_VALID: return .certificate(.notYetValid)
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
            X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_UNTRUSTED,
            X509_V_ERR_CERT_SIGNATURE_FAILURE:
            return .certificate(.unknownAuthority)
        case X509_V_ERR_CERT_REVOKED: return .certificate(.revoked)
        case X509_V_ERR_UNABLE_TO_GET_CRL: return .certificate(.noRevocationList)
        case X509_V_ERR_CRL_HAS_EXPIRED: return .certificate(.revocationListExpired)
        case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: return .certificate(.wrongName)
        case X509_V_ERR_APPLICATION_VERIFICATION: return .certificate(.wrongPin)
        default: return .certificate(.other(unsafe X509_verify_cert_error_string(Int(result)).map { unsafe String(cString: $0) } ?? "error \(result)"))
        }
    }

    /// Before each use of OpenSSL with the socket; `tls_stream_end` comes after.
    private func begin(receives: Int32) {
        unsafe tls_stream_begin(stream, receives, Self.keyUpdatesPerTurn)
        ERR_clear_error()
    }

    private func end() { unsafe tls_stream_end(stream) }

    /// What was received and not decrypted, or decrypted and not taken.
    private var holdsInput: Bool { unsafe stream.pointee.ahead_count > 0 || SSL_has_pending(connection) == 1 }
}
