/*
 * pattern_access.c
 *		Under which keys of the index a rule can be found.
 */
#include "postgres.h"

#include "route/pattern_index.h"

/*
 * Prefixes and suffixes are looked up by length, so there should not be too many different ones:
 * longer ones are found by a part of them.
 */
int
access_round_length(int length)
{
	if (length <= 16)
		return length;
	return length <= 64 ? length & ~7 : length & ~31;
}

static Access
text_access(AccessKind kind, const PathNode *path, const char *data, int length, double share)
{
	Access access = {kind, access_key(kind, path, data, length), length, 0, NULL, share};

	return access;
}

static Access
any_access(const PathNode *path, double share)
{
	return text_access(ACCESS_ANY, path, "", 0, share);
}

Access
access_of_string(const PathNode *path, Str string)
{
	return text_access(ACCESS_STRING, path, string.data, string.length, 0.2);
}

/* By the beginning or end of a string; none when it is empty. */
static int
affix_access(AccessKind kind, const PathNode *path, Str string, Access *accesses)
{
	int length = access_round_length(string.length);
	bool suffix = kind == ACCESS_SUFFIX || kind == ACCESS_SUFFIX_FOLD;

	if (length == 0)
		return 0;
	accesses[0] =
		text_access(kind, path, suffix ? string.data + string.length - length : string.data, length,
					0.2 + 0.6 / length);
	return 1;
}

static int
glob_access(const PathNode *path, const Glob *glob, Access *accesses)
{
	int count = 0;

	if (glob->count == 1)
	{
		accesses[0] = access_of_string(path, glob->pieces[0]);
		return 1;
	}
	count += affix_access(ACCESS_PREFIX, path, glob->pieces[0], accesses + count);
	count += affix_access(ACCESS_SUFFIX, path, glob->pieces[glob->count - 1], accesses + count);
	for (int i = 1; i < glob->count - 1; i++)
	{
		Str piece = glob->pieces[i];
		int length = Min(piece.length, GRAM_LENGTH);
		int step;

		if (length == 0 || count == MAX_ACCESSES)
			continue;
		/* All of a short piece, and of a long one what there is room for. */
		step = Max(1, (piece.length - length) / 8);
		for (int at = 0; at + length <= piece.length && count < MAX_ACCESSES; at += step)
			accesses[count++] =
				text_access(ACCESS_GRAM, path, piece.data + at, length, 0.25 + 0.6 / length);
	}
	return count;
}

int
access_of_matcher(const PathNode *path, const Matcher *matcher, Access *accesses)
{
	static const char kinds[] = {LEAF_TRUE, LEAF_FALSE, LEAF_NULL};
	int count = 0;

	switch (matcher->kind)
	{
		case MATCH_STRING:
			accesses[count++] = access_of_string(path, matcher->string);
			break;
		case MATCH_NUMBER:
			accesses[0] = text_access(ACCESS_NUMBER, path, "", 0, 0.2);
			accesses[0].key = access_number_key(path, &matcher->number);
			count = 1;
			break;
		case MATCH_TRUE:
		case MATCH_FALSE:
		case MATCH_NULL:
			accesses[count++] =
				text_access(ACCESS_KIND, path, &kinds[matcher->kind - MATCH_TRUE], 1, 0.5);
			break;
		case MATCH_PREFIX:
			count = affix_access(ACCESS_PREFIX, path, matcher->string, accesses);
			break;
		case MATCH_SUFFIX:
			count = affix_access(ACCESS_SUFFIX, path, matcher->string, accesses);
			break;
		case MATCH_FOLD:
			accesses[count++] = text_access(ACCESS_FOLD, path, matcher->fold.key.data,
											matcher->fold.key.length, 0.2);
			break;
		case MATCH_PREFIX_FOLD:
			count = affix_access(ACCESS_PREFIX_FOLD, path, matcher->fold.key, accesses);
			break;
		case MATCH_SUFFIX_FOLD:
			count = affix_access(ACCESS_SUFFIX_FOLD, path, matcher->fold.key, accesses);
			break;
		case MATCH_GLOB:
			count = glob_access(path, &matcher->glob, accesses);
			break;
		case MATCH_RANGE:
			accesses[0] = text_access(ACCESS_RANGE, path, "", 0, 0.5);
			accesses[0].range = &matcher->range;
			count = 1;
			break;
		case MATCH_ADDRESS:
			accesses[0] = text_access(ACCESS_ADDRESS, path, "", 0, 0.2);
			accesses[0].key = access_address_key(ACCESS_ADDRESS, path, &matcher->address, 0);
			count = 1;
			break;
		case MATCH_CIDR:
			accesses[0] = text_access(ACCESS_CIDR, path, "", 0, 0.3);
			accesses[0].length = matcher->bits;
			accesses[0].family = matcher->address.family;
			accesses[0].key =
				access_address_key(ACCESS_CIDR, path, &matcher->address, matcher->bits);
			count = 1;
			break;
		case MATCH_EXISTS:
		case MATCH_NOT:
			break;
	}
	if (count == 0)
		accesses[count++] = any_access(path, 0.9);
	return count;
}
