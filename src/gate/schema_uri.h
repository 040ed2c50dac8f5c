/*
 * schema_uri.h
 *		References between schemas: URIs as RFC 3986 resolves them.
 */
#ifndef BEHAVIOR_SCHEMA_URI_H
#define BEHAVIOR_SCHEMA_URI_H

/* A reference as seen from a base, without its fragment; in the current context. */
extern char *schema_uri_resolve(const char *base, const char *reference);

/* What is behind the #, percent-decoded; NULL when there is none. */
extern char *schema_uri_fragment(const char *reference);

#endif
