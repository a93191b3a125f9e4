#include "CTLS.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <string.h>

// A provider whose keys have a public half only: what they are to sign goes to a `tls_signer`. It knows what libssl asks of a
// certificate's key, no more (provider-keymgmt(7), provider-signature(7)). The names of its signatures are its own, so that
// OpenSSL takes no other provider's for its keys.

#define PROVIDER "portcullis"
#define PROPERTIES "provider=" PROVIDER
#define SIGNER_PARAMETER "portcullis-signer"

// MARK: Kinds of keys

typedef struct {
    const char *algorithm;  // the name libssl knows the kind by
    const char *group;      // of an elliptic curve; NULL: the kind says it
    const char *signature;
    int bits, security_bits, signature_size;
} key_kind;

static const key_kind kinds[] = {
    {"EC", SN_X9_62_prime256v1, "PORTCULLIS-ECDSA", 256, 128, 72},
    {"EC", SN_secp384r1, "PORTCULLIS-ECDSA", 384, 192, 104},
    {"ED25519", NULL, "PORTCULLIS-ED25519", 256, 128, 64},
};
enum { KINDS = sizeof kinds / sizeof kinds[0], MOST_POINT = 97 };

// The digests that ECDSA is asked with, and the scheme that names both.
static const struct {
    const char *digest;
    uint16_t scheme;
} ecdsa_schemes[] = {{"SHA256", 0x0403}, {"SHA2-256", 0x0403}, {"SHA384", 0x0503}, {"SHA2-384", 0x0503}};
enum { ED25519_SCHEME = 0x0807 };

// MARK: Keys

typedef struct {
    const char *algorithm;
    const key_kind *kind;
    uint8_t point[MOST_POINT];
    size_t point_size;
    const tls_signer *signer;
} key;

static void *key_new(const char *algorithm) {
    key *made = OPENSSL_zalloc(sizeof *made);
    if (made != NULL) made->algorithm = algorithm;
    return made;
}
static void *key_new_ec(void *provider) { return key_new("EC"); }
static void *key_new_ed25519(void *provider) { return key_new("ED25519"); }
static void key_free(void *key) { OPENSSL_free(key); }

static int key_has(const void *data, int selection) {
    const key *k = data;
    if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) && k->point_size == 0) return 0;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) && k->signer == NULL) return 0;
    return 1;
}

static int key_match(const void *one, const void *other, int selection) {
    const key *a = one, *b = other;
    return a->kind == b->kind && a->point_size == b->point_size && memcmp(a->point, b->point, a->point_size) == 0;
}

static int key_import(void *data, int selection, const OSSL_PARAM parameters[]) {
    key *k = data;
    const char *group = NULL;
    const OSSL_PARAM *found = OSSL_PARAM_locate_const(parameters, OSSL_PKEY_PARAM_GROUP_NAME);
    if (found != NULL && !OSSL_PARAM_get_utf8_string_ptr(found, &group)) return 0;
    for (int index = 0; index < KINDS && k->kind == NULL; index++) {
        if (strcmp(kinds[index].algorithm, k->algorithm) != 0) continue;
        if (kinds[index].group == NULL || (group != NULL && strcmp(kinds[index].group, group) == 0)) k->kind = &kinds[index];
    }
    if (k->kind == NULL) return 0;
    found = OSSL_PARAM_locate_const(parameters, OSSL_PKEY_PARAM_PUB_KEY);
    void *point = k->point;
    if (found == NULL || !OSSL_PARAM_get_octet_string(found, &point, sizeof k->point, &k->point_size)) return 0;
    found = OSSL_PARAM_locate_const(parameters, SIGNER_PARAMETER);
    void *signer = &k->signer;
    size_t size;
    return found == NULL || (OSSL_PARAM_get_octet_string(found, &signer, sizeof k->signer, &size) && size == sizeof k->signer);
}

static const OSSL_PARAM *key_types(int selection) {
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) ? types : NULL;
}

// Another provider gets the public half, to compare it with a certificate's.
static int key_export(void *data, int selection, OSSL_CALLBACK *callback, void *argument) {
    key *k = data;
    if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) return 0;
    OSSL_PARAM parameters[3], *next = parameters;
    if (k->kind->group != NULL) *next++ = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)k->kind->group, 0);
    *next++ = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, k->point, k->point_size);
    *next = OSSL_PARAM_construct_end();
    return callback(parameters, argument);
}

static int key_get(void *data, OSSL_PARAM parameters[]) {
    key *k = data;
    const struct {
        const char *name;
        int value;
    } numbers[] = {
        {OSSL_PKEY_PARAM_BITS, k->kind->bits},
        {OSSL_PKEY_PARAM_SECURITY_BITS, k->kind->security_bits},
        {OSSL_PKEY_PARAM_MAX_SIZE, k->kind->signature_size},
    };
    for (size_t index = 0; index < sizeof numbers / sizeof numbers[0]; index++) {
        OSSL_PARAM *wanted = OSSL_PARAM_locate(parameters, numbers[index].name);
        if (wanted != NULL && !OSSL_PARAM_set_int(wanted, numbers[index].value)) return 0;
    }
    OSSL_PARAM *wanted = OSSL_PARAM_locate(parameters, OSSL_PKEY_PARAM_GROUP_NAME);
    if (wanted != NULL && k->kind->group != NULL && !OSSL_PARAM_set_utf8_string(wanted, k->kind->group)) return 0;
    wanted = OSSL_PARAM_locate(parameters, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);
    return wanted == NULL || OSSL_PARAM_set_octet_string(wanted, k->point, k->point_size);
}

static const OSSL_PARAM *key_gettable(void *provider) {
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return types;
}

static const char *ec_operation(int operation) { return operation == OSSL_OP_SIGNATURE ? "PORTCULLIS-ECDSA" : NULL; }
static const char *ed25519_operation(int operation) { return operation == OSSL_OP_SIGNATURE ? "PORTCULLIS-ED25519" : NULL; }

#define FUNCTION(name) ((void (*)(void))(name))
#define KEY_MANAGEMENT(new, operation)                                                                                        \
    {                                                                                                                         \
        {OSSL_FUNC_KEYMGMT_NEW, FUNCTION(new)}, {OSSL_FUNC_KEYMGMT_FREE, FUNCTION(key_free)},                                 \
            {OSSL_FUNC_KEYMGMT_HAS, FUNCTION(key_has)}, {OSSL_FUNC_KEYMGMT_MATCH, FUNCTION(key_match)},                       \
            {OSSL_FUNC_KEYMGMT_IMPORT, FUNCTION(key_import)}, {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, FUNCTION(key_types)},          \
            {OSSL_FUNC_KEYMGMT_EXPORT, FUNCTION(key_export)}, {OSSL_FUNC_KEYMGMT_EXPORT_TYPES, FUNCTION(key_types)},          \
            {OSSL_FUNC_KEYMGMT_GET_PARAMS, FUNCTION(key_get)}, {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, FUNCTION(key_gettable)},   \
            {OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, FUNCTION(operation)}, {0, NULL},                                         \
    }
static const OSSL_DISPATCH ec_keys[] = KEY_MANAGEMENT(key_new_ec, ec_operation);
static const OSSL_DISPATCH ed25519_keys[] = KEY_MANAGEMENT(key_new_ed25519, ed25519_operation);

// MARK: Signatures: of a whole message at once, which is how libssl asks.

typedef struct {
    const key *key;
    uint16_t scheme;
} signature;

static void *signature_new(void *provider, const char *properties) { return OPENSSL_zalloc(sizeof(signature)); }
static void signature_free(void *context) { OPENSSL_free(context); }

static int signature_init(void *context, const char *digest, void *data, const OSSL_PARAM parameters[]) {
    signature *s = context;
    s->key = data;
    s->scheme = 0;
    if (s->key->kind->group == NULL) {
        if (digest == NULL || *digest == 0) s->scheme = ED25519_SCHEME;
    } else {
        for (size_t index = 0; digest != NULL && index < sizeof ecdsa_schemes / sizeof ecdsa_schemes[0]; index++) {
            if (OPENSSL_strcasecmp(digest, ecdsa_schemes[index].digest) == 0) s->scheme = ecdsa_schemes[index].scheme;
        }
    }
    return s->scheme != 0 && s->key->signer != NULL;
}

static int signature_sign(void *context, unsigned char *bytes, size_t *size, size_t capacity, const unsigned char *message, size_t length) {
    signature *s = context;
    if (bytes == NULL) {
        *size = (size_t)s->key->kind->signature_size;
        return 1;
    }
    *size = s->key->signer->sign(s->key->signer->context, s->scheme, message, length, bytes, capacity);
    if (*size > 0 && *size <= capacity) return 1;
    ERR_raise(TLS_LIBRARY_OF_REFUSALS, ERR_R_OPERATION_FAIL);
    return 0;
}

static const OSSL_DISPATCH signing[] = {
    {OSSL_FUNC_SIGNATURE_NEWCTX, FUNCTION(signature_new)},
    {OSSL_FUNC_SIGNATURE_FREECTX, FUNCTION(signature_free)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, FUNCTION(signature_init)},
    {OSSL_FUNC_SIGNATURE_DIGEST_SIGN, FUNCTION(signature_sign)},
    {0, NULL},
};

// MARK: The provider

static const OSSL_ALGORITHM key_algorithms[] = {
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, ec_keys, "keys that others sign with"},
    {"ED25519:1.3.101.112", PROPERTIES, ed25519_keys, "keys that others sign with"},
    {NULL, NULL, NULL, NULL},
};
static const OSSL_ALGORITHM signature_algorithms[] = {
    {"PORTCULLIS-ECDSA", PROPERTIES, signing, "signatures by others"},
    {"PORTCULLIS-ED25519", PROPERTIES, signing, "signatures by others"},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM *provider_query(void *context, int operation, int *no_store) {
    *no_store = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT: return key_algorithms;
    case OSSL_OP_SIGNATURE: return signature_algorithms;
    default: return NULL;
    }
}

static int provider_start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **context) {
    static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, FUNCTION(provider_query)}, {0, NULL}};
    // It needs no state; a provider must have some.
    static char nothing;
    *context = &nothing;
    *out = functions;
    return 1;
}

int tls_signing_provider_add(OSSL_LIB_CTX *library) {
    return OSSL_PROVIDER_add_builtin(library, PROVIDER, provider_start) == 1 && OSSL_PROVIDER_load(library, PROVIDER) != NULL;
}

EVP_PKEY *tls_signing_key(OSSL_LIB_CTX *library, EVP_PKEY *public_key, const tls_signer *signer) {
    uint8_t point[MOST_POINT];
    size_t point_size = 0;
    char group[32] = "";
    for (int index = 0; index < KINDS; index++) {
        const key_kind *kind = &kinds[index];
        if (!EVP_PKEY_is_a(public_key, kind->algorithm)) continue;
        if (kind->group != NULL) {
            size_t length;
            if (EVP_PKEY_get_group_name(public_key, group, sizeof group, &length) != 1 || strcmp(group, kind->group) != 0) continue;
        }
        if (EVP_PKEY_get_octet_string_param(public_key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &point_size) != 1) return NULL;
        OSSL_PARAM parameters[4], *next = parameters;
        if (kind->group != NULL) *next++ = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0);
        *next++ = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, point_size);
        *next++ = OSSL_PARAM_construct_octet_string(SIGNER_PARAMETER, &signer, sizeof signer);
        *next = OSSL_PARAM_construct_end();
        EVP_PKEY *made = NULL;
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(library, kind->algorithm, PROPERTIES);
        if (context != NULL && EVP_PKEY_fromdata_init(context) == 1) EVP_PKEY_fromdata(context, &made, EVP_PKEY_KEYPAIR, parameters);
        EVP_PKEY_CTX_free(context);
        return made;
    }
    return NULL;
}
