import COpenSSL

/// Overwrites the bytes of an array where they are, so that whoever else refers to the same storage finds them gone, too: for a secret
/// that has passed through an array on its way into a `Secret`, and whose array nobody reads any more.
public func wipe(_ bytes: borrowing [UInt8]) { wipe(bytes, 0..<bytes.count) }

/// The same of these bytes alone.
public func wipe(_ bytes: borrowing [UInt8], _ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
    unsafe bytes.withUnsafeBytes { bytes in
        guard let start = bytes.baseAddress else { return }
        unsafe OPENSSL_cleanse(UnsafeMutableRawPointer(mutating: start + range.lowerBound), range.count)
    }
}
