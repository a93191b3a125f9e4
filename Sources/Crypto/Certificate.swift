import COpenSSL

/// Why certificates or revocation lists are not taken.
public enum CertificateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// None in PEM.
    case none
    /// One, counted from 1, cannot be read.
    case malformed(Int)
    /// More than `mostInFile`.
    case tooMany

    public var description: String {
        switch self {
        case .none: "there is nothing of that kind in PEM form"
        case .malformed(let number): "number \(number) in it cannot be read"
        case .tooMany: "there are more than \(CertificateChain.mostInFile) in it"
        }
    }
}

/// What an X.509 certificate says (RFC 5280), as far as it is asked here. Nothing of it is verified.
public struct Certificate: Hashable, Sendable {
    public let der: [UInt8]
    /// SHA-256 of `der`.
    public let fingerprint: [UInt8]
    /// DER (SubjectPublicKeyInfo, §4.1.2.7).
    public let publicKey: [UInt8]
    /// One line of ASCII as RFC 2253 writes it, at most `mostSubject` bytes of it.
    public let subject: [UInt8]
    /// Seconds since 1970 (§4.1.2.5).
    public let notBefore: Int64
    public let notAfter: Int64
    /// The subject's alternative names of the form URI (§4.2.1.6).
    public let uris: [[UInt8]]

    /// Bytes of a subject that are kept: enough for a log line.
    public static let mostSubject = 256

    /// nil: it is no certificate, or one that says no valid times.
    public init?(der: [UInt8]) {
        let read = unsafe der.withUnsafeBufferPointer { bytes in
            var next = bytes.baseAddress
            return unsafe d2i_X509(nil, &next, bytes.count)
        }
        guard let certificate = unsafe read else {
            ERR_clear_error()
            return nil
        }
        defer { unsafe X509_free(certificate) }
        unsafe self.init(certificate)
    }

    fileprivate init?(_ certificate: OpaquePointer) {
        guard let notBefore = unsafe seconds(X509_get0_notBefore(certificate)), let notAfter = unsafe seconds(X509_get0_notAfter(certificate)) else {
            return nil
        }
        der = unsafe encoded { unsafe i2d_X509(certificate, $0) }
        fingerprint = Digest.sha256.hash(der)
        publicKey = unsafe encoded { unsafe i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), $0) }
        subject = unsafe Self.line(X509_get_subject_name(certificate))
        self.notBefore = notBefore
        self.notAfter = notAfter
        uris = unsafe Self.uris(certificate)
    }

    @unsafe private static func line(_ name: OpaquePointer) -> [UInt8] {
        guard let bio = unsafe BIO_new(BIO_s_mem()) else { preconditionFailure("there is memory for a name") }
        defer { unsafe BIO_free(bio) }
        guard unsafe X509_NAME_print_ex(bio, name, 0, portcullis_name_in_one_line) >= 0 else { return [] }
        return unsafe [UInt8](unsafeUninitializedCapacity: mostSubject) { buffer, initialized in
            unsafe initialized = max(0, Int(BIO_read(bio, buffer.baseAddress, Int32(buffer.count))))
        }
    }

    @unsafe private static func uris(_ certificate: OpaquePointer) -> [[UInt8]] {
        guard let names = unsafe X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else { return [] }
        let list = OpaquePointer(names)
        defer { unsafe GENERAL_NAMES_free(list) }
        var uris: [[UInt8]] = []
        let count = unsafe OPENSSL_sk_num(list)
        for index in 0..<count {
            var kind: Int32 = 0
            guard let name = unsafe OPENSSL_sk_value(list, index)?.assumingMemoryBound(to: GENERAL_NAME.self),
                let value = unsafe GENERAL_NAME_get0_value(name, &kind), kind == GEN_URI
            else { continue }
            let text = unsafe value.assumingMemoryBound(to: ASN1_STRING.self)
            unsafe uris.append(Array(UnsafeBufferPointer(start: ASN1_STRING_get0_data(text), count: Int(ASN1_STRING_length(text)))))
        }
        return uris
    }
}

/// Certificates of a file: a key's own one first and what leads from it towards an authority; or authorities, whose order means nothing.
public struct CertificateChain: Hashable, Sendable {
    public let certificates: [Certificate]

    /// More than a list of every public authority.
    public static let mostInFile = 256

    public init(pem: [UInt8]) throws(CertificateError) { try self.init(pem.span) }

    /// Of a file that may hold their key, too.
    public init(pem: Secret) throws(CertificateError) { self = try pem.withBytes { pem throws(CertificateError) in try Self(pem) } }

    /// All certificates in `pem`; whatever else is there, a private key say, is passed over.
    private init(_ pem: borrowing Span<UInt8>) throws(CertificateError) {
        certificates = try unsafe everyOne(in: pem) { bio in
            guard let certificate = unsafe PEM_read_bio_X509(bio, nil, noPassPhrase, nil) else { return nil }
            defer { unsafe X509_free(certificate) }
            return unsafe .some(Certificate(certificate))
        }
    }

    /// The first: the key's own.
    public var leaf: Certificate { certificates[0] }
    /// The certificates alone, without whatever else the file held: this is what may be given to others.
    public var pem: [UInt8] { certificates.flatMap { armoured($0.der, as: "CERTIFICATE") } }
    /// Whether `key` is the private key of the first certificate.
    public func matches(_ key: SigningKey) -> Bool { key.publicKey == leaf.publicKey }
}

/// Certificate revocation lists of a file (RFC 5280 §5).
public struct RevocationLists: Hashable, Sendable {
    /// DER.
    public let lists: [[UInt8]]
    /// When the first of them is to be replaced, in seconds since 1970; nil: none says so. From then on it is not believed any more.
    public let nextUpdate: Int64?

    public init(pem: [UInt8]) throws(CertificateError) { try self.init(pem.span) }

    /// Of a file that may hold something else, too.
    public init(pem: Secret) throws(CertificateError) { self = try pem.withBytes { pem throws(CertificateError) in try Self(pem) } }

    private init(_ pem: borrowing Span<UInt8>) throws(CertificateError) {
        let found = try unsafe everyOne(in: pem) { bio -> (der: [UInt8], nextUpdate: Int64?)?? in
            guard let list = unsafe PEM_read_bio_X509_CRL(bio, nil, noPassPhrase, nil) else { return nil }
            defer { unsafe X509_CRL_free(list) }
            let nextUpdate = unsafe X509_CRL_get0_nextUpdate(list)
            return unsafe .some((encoded { unsafe i2d_X509_CRL(list, $0) }, seconds(nextUpdate)))
        }
        lists = found.map(\.der)
        nextUpdate = found.compactMap(\.nextUpdate).min()
    }

    /// The lists alone.
    public var pem: [UInt8] { lists.flatMap { armoured($0, as: "X509 CRL") } }
}

// MARK: PEM

/// Nobody is there to be asked.
private func noPassPhrase(_: UnsafeMutablePointer<CChar>?, _: Int32, _: Int32, _: UnsafeMutableRawPointer?) -> Int32 { -1 }

/// What `read` finds in `pem`, one after the other.
/// - Parameter read: nil at the end or what is no PEM; the inner one: it is malformed
@unsafe private func everyOne<Item>(in pem: borrowing Span<UInt8>, _ read: (OpaquePointer) -> Item??) throws(CertificateError) -> [Item] {
    let (items, problem) = unsafe withMemoryBIO(pem) { bio -> ([Item], CertificateError?) in
        var items: [Item] = []
        while let item = unsafe read(bio) {
            guard let item else { return (items, .malformed(items.count + 1)) }
            guard items.count < CertificateChain.mostInFile else { return (items, .tooMany) }
            items.append(item)
        }
        let last = ERR_peek_last_error()
        ERR_clear_error()
        let isEnd = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE
        return (items, isEnd ? nil : .malformed(items.count + 1))
    }
    if let problem { throw problem }
    guard !items.isEmpty else { throw .none }
    return items
}

/// RFC 7468.
private func armoured(_ der: [UInt8], as label: String) -> [UInt8] {
    // EVP_EncodeBlock writes a zero byte behind.
    var text = [UInt8](repeating: 0, count: (der.count + 2) / 3 * 4 + 1)
    let length = unsafe EVP_EncodeBlock(&text, der, Int32(der.count))
    var pem = Array("-----BEGIN \(label)-----\n".utf8)
    for start in stride(from: 0, to: Int(length), by: 64) { pem += text[start..<min(start + 64, Int(length))] + [UInt8(ascii: "\n")] }
    return pem + Array("-----END \(label)-----\n".utf8)
}

/// Seconds since 1970; nil: it says no time.
@unsafe private func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64? {
    guard let time = unsafe time, let epoch = unsafe ASN1_TIME_set(nil, 0) else { return nil }
    defer { unsafe ASN1_STRING_free(epoch) }
    var (days, rest): (Int32, Int32) = (0, 0)
    guard unsafe ASN1_TIME_diff(&days, &rest, epoch, time) == 1 else { return nil }
    return Int64(days) * 86400 + Int64(rest)
}
