/*
 * pattern_matcher.c
 *		Does one alternative of a pattern accept a leaf of an event?
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "route/pattern_internal.h"

/* Wildcards in linear time: each piece is taken where it stands first, behind the one before. */
bool
glob_accepts(const Glob *glob, Str value)
{
	const Str *first = &glob->pieces[0];
	const Str *last = &glob->pieces[glob->count - 1];
	const char *cur;
	const char *end;

	if (glob->count == 1)
		return str_equal(*first, value);
	if (value.length < first->length + last->length ||
		memcmp(value.data, first->data, first->length) != 0 ||
		memcmp(value.data + value.length - last->length, last->data, last->length) != 0)
		return false;
	cur = value.data + first->length;
	end = value.data + value.length - last->length;
	for (int i = 1; i < glob->count - 1; i++)
	{
		const Str *piece = &glob->pieces[i];

		if (end - cur < piece->length)
			return false;
		cur = memmem(cur, end - cur, piece->data, piece->length);
		if (cur == NULL)
			return false;
		cur += piece->length;
	}
	return true;
}

/* Digits with three dots between them, or hexadecimal and colons. */
bool
address_plausible(Str text)
{
	int colons = 0;
	int dots = 0;
	bool hexadecimal = false;

	for (int i = 0; i < text.length; i++)
	{
		char c = text.data[i];

		if (c == ':')
			colons++;
		else if (c == '.')
		{
			dots++;
			if (i == 0 || text.data[i - 1] == '.' || i == text.length - 1)
				return false;
		}
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			hexadecimal = true;
		else if (c < '0' || c > '9')
			return false;
	}
	return colons > 0 ? dots == 0 : dots == 3 && !hexadecimal;
}

/*
 * IPv4 as four decimal numbers without leading zeros, IPv6 in hexadecimal and colons alone, without
 * IPv4 at its end or a zone.
 */
bool
address_parse(Str text, Address *address)
{
	char buffer[INET6_ADDRSTRLEN];
	bool colon;

	memset(address, 0, sizeof(Address));
	if (text.length < 2 || text.length >= (int) sizeof(buffer) || !address_plausible(text))
		return false;
	memcpy(buffer, text.data, text.length);
	buffer[text.length] = '\0';
	colon = strchr(buffer, ':') != NULL;
	if (inet_pton(colon ? AF_INET6 : AF_INET, buffer, address->bytes) != 1)
		return false;
	address->family = colon ? 6 : 4;
	return true;
}

bool
address_in(const Address *address, const Address *network, int bits)
{
	int bytes = bits / 8;
	uint8 mask = (uint8) (0xFF00 >> (bits % 8));

	return address->family == network->family &&
		   memcmp(address->bytes, network->bytes, bytes) == 0 &&
		   (mask == 0 || ((address->bytes[bytes] ^ network->bytes[bytes]) & mask) == 0);
}

const Address *
leaf_address(Leaf *leaf)
{
	if (!leaf->address_known)
	{
		if (leaf->kind != LEAF_STRING || !address_parse(leaf->string, &leaf->address))
			leaf->address.family = 0;
		leaf->address_known = true;
	}
	return &leaf->address;
}

static bool
range_accepts(const Range *range, const Number *number)
{
	int order;

	if (range->has_low)
	{
		order = number_compare(number, &range->low);
		if (order < 0 || (order == 0 && range->open_low))
			return false;
	}
	if (range->has_high)
	{
		order = number_compare(number, &range->high);
		if (order > 0 || (order == 0 && range->open_high))
			return false;
	}
	return true;
}

bool
matcher_accepts(const Matcher *matcher, Leaf *leaf)
{
	bool string = leaf->kind == LEAF_STRING;
	Str value = leaf->string;

	switch (matcher->kind)
	{
		case MATCH_STRING:
			return string && str_equal(value, matcher->string);
		case MATCH_NUMBER:
			return leaf->kind == LEAF_NUMBER &&
				   number_compare(&leaf->number, &matcher->number) == 0;
		case MATCH_TRUE:
			return leaf->kind == LEAF_TRUE;
		case MATCH_FALSE:
			return leaf->kind == LEAF_FALSE;
		case MATCH_NULL:
			return leaf->kind == LEAF_NULL;
		case MATCH_EXISTS:
			return true;
		case MATCH_PREFIX:
			return string && value.length >= matcher->string.length &&
				   memcmp(value.data, matcher->string.data, matcher->string.length) == 0;
		case MATCH_SUFFIX:
			return string && value.length >= matcher->string.length &&
				   memcmp(value.data + value.length - matcher->string.length, matcher->string.data,
						  matcher->string.length) == 0;
		case MATCH_FOLD:
			return string && fold_match_start(&matcher->fold, value) == value.length;
		case MATCH_PREFIX_FOLD:
			return string && fold_match_start(&matcher->fold, value) >= 0;
		case MATCH_SUFFIX_FOLD:
			return string && fold_match_end(&matcher->fold, value) >= 0;
		case MATCH_GLOB:
			return string && glob_accepts(&matcher->glob, value);
		case MATCH_RANGE:
			return leaf->kind == LEAF_NUMBER && range_accepts(&matcher->range, &leaf->number);
		case MATCH_ADDRESS:
			return string && address_in(leaf_address(leaf), &matcher->address,
										matcher->address.family == 4 ? 32 : 128);
		case MATCH_CIDR:
			return string && address_in(leaf_address(leaf), &matcher->address, matcher->bits);
		case MATCH_NOT:
			return !matcher_list_accepts(matcher->except, leaf);
	}
	return false;
}

static int
compare_strings(const void *a, const void *b)
{
	const Str *x = a;
	const Str *y = b;

	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->data, y->data, x->length);
}

void
matcher_list_sort(MatcherList *list)
{
	if (list->string_count > 1)
		qsort(list->strings, list->string_count, sizeof(Str), compare_strings);
}

static bool
strings_have(const MatcherList *list, Str value)
{
	int low = 0;
	int high = list->string_count - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		int order = compare_strings(&value, &list->strings[middle]);

		if (order == 0)
			return true;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return false;
}

bool
matcher_list_accepts(const MatcherList *list, Leaf *leaf)
{
	if (leaf->kind == LEAF_STRING && list->string_count > 0 && strings_have(list, leaf->string))
		return true;
	for (int i = 0; i < list->count; i++)
	{
		if (matcher_accepts(&list->matchers[i], leaf))
			return true;
	}
	return false;
}
