/*
 * schema_uri.c
 *		References between schemas: URIs as RFC 3986 resolves them.
 *
 * Section 5.2 word for word; URIs are compared as they are spelt.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "core/scan.h"
#include "gate/schema_uri.h"

/* A part that is not there has start NULL; the path is always there. */
typedef struct UriPart
{
	const char *start;
	int length;
} UriPart;

typedef struct Uri
{
	UriPart scheme;
	UriPart authority;
	UriPart path;
	UriPart query;
} Uri;

static void
split_uri(Uri *uri, const char *text)
{
	const char *cur = text;
	const char *end = text + strcspn(text, "#");

	memset(uri, 0, sizeof(*uri));
	cur += strspn(cur, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
	if (cur > text && cur < end && *cur == ':' && !(*text >= '0' && *text <= '9') &&
		strchr("+-.", *text) == NULL)
	{
		uri->scheme.start = text;
		uri->scheme.length = cur - text;
		cur++;
	}
	else
		cur = text;
	if (end - cur >= 2 && cur[0] == '/' && cur[1] == '/')
	{
		uri->authority.start = cur + 2;
		uri->authority.length = strcspn(cur + 2, "/?#");
		cur += 2 + uri->authority.length;
	}
	uri->path.start = cur;
	uri->path.length = strcspn(cur, "?#");
	cur += uri->path.length;
	if (cur < end && *cur == '?')
	{
		uri->query.start = cur + 1;
		uri->query.length = end - cur - 1;
	}
}

/* Section 5.2.4: takes "." and ".." out of a path. */
static char *
remove_dot_segments(const char *path, int length)
{
	char *output = palloc(length + 1);
	int size = 0;
	const char *cur = path;
	const char *end = path + length;

	while (cur < end)
	{
		const char *stop;

		if (end - cur >= 3 && memcmp(cur, "../", 3) == 0)
			cur += 3;
		else if (end - cur >= 2 && memcmp(cur, "./", 2) == 0)
			cur += 2;
		else if (end - cur >= 3 && memcmp(cur, "/./", 3) == 0)
			cur += 2;
		else if (end - cur == 2 && memcmp(cur, "/.", 2) == 0)
		{
			output[size++] = '/';
			break;
		}
		else if ((end - cur >= 4 && memcmp(cur, "/../", 4) == 0) ||
				 (end - cur == 3 && memcmp(cur, "/..", 3) == 0))
		{
			bool last = end - cur == 3;

			while (size > 0 && output[--size] != '/')
				;
			if (last)
			{
				output[size++] = '/';
				break;
			}
			cur += 3;
		}
		else if ((end - cur == 1 && *cur == '.') || (end - cur == 2 && memcmp(cur, "..", 2) == 0))
			break;
		else
		{
			stop = cur + 1;
			while (stop < end && *stop != '/')
				stop++;
			memcpy(output + size, cur, stop - cur);
			size += stop - cur;
			cur = stop;
		}
	}
	output[size] = '\0';
	return output;
}

/* Section 5.2.3: the reference's path in place of the last segment of the base's. */
static char *
merge_paths(const Uri *base, const UriPart *path)
{
	int kept = base->path.length;
	char *merged = palloc(kept + path->length + 2);

	if (base->authority.start != NULL && base->path.length == 0)
	{
		merged[0] = '/';
		kept = 1;
	}
	else
	{
		while (kept > 0 && base->path.start[kept - 1] != '/')
			kept--;
		memcpy(merged, base->path.start, kept);
	}
	memcpy(merged + kept, path->start, path->length);
	merged[kept + path->length] = '\0';
	return merged;
}

char *
schema_uri_resolve(const char *base_text, const char *reference_text)
{
	Uri base;
	Uri reference;
	Uri *from;
	UriPart query;
	char *path;
	StringInfoData result;

	split_uri(&base, base_text);
	split_uri(&reference, reference_text);
	query = reference.query;
	from = &reference;
	if (reference.scheme.start == NULL)
	{
		reference.scheme = base.scheme;
		if (reference.authority.start == NULL)
			from = &base;
	}

	if (from == &reference)
		path = remove_dot_segments(reference.path.start, reference.path.length);
	else if (reference.path.length == 0)
	{
		path = pnstrdup(base.path.start, base.path.length);
		if (query.start == NULL)
			query = base.query;
	}
	else if (reference.path.start[0] == '/')
		path = remove_dot_segments(reference.path.start, reference.path.length);
	else
	{
		char *merged = merge_paths(&base, &reference.path);

		path = remove_dot_segments(merged, strlen(merged));
	}

	initStringInfo(&result);
	if (reference.scheme.start != NULL)
	{
		appendBinaryStringInfo(&result, reference.scheme.start, reference.scheme.length);
		appendStringInfoChar(&result, ':');
	}
	if (from->authority.start != NULL)
	{
		appendStringInfoString(&result, "//");
		appendBinaryStringInfo(&result, from->authority.start, from->authority.length);
	}
	appendStringInfoString(&result, path);
	if (query.start != NULL)
	{
		appendStringInfoChar(&result, '?');
		appendBinaryStringInfo(&result, query.start, query.length);
	}
	return result.data;
}

char *
schema_uri_fragment(const char *reference)
{
	const char *cur = strchr(reference, '#');
	char *fragment;
	char *target;

	if (cur == NULL)
		return NULL;
	fragment = target = palloc(strlen(cur));
	for (cur++; *cur != '\0'; cur++)
	{
		/* No name has a zero byte, so that %00 may stay as it is. */
		if (cur[0] == '%' && hex_digit(cur[1]) >= 0 && hex_digit(cur[2]) >= 0 &&
			(cur[1] != '0' || cur[2] != '0'))
		{
			*target++ = (char) (hex_digit(cur[1]) << 4 | hex_digit(cur[2]));
			cur += 2;
		}
		else
			*target++ = *cur;
	}
	*target = '\0';
	return fragment;
}
