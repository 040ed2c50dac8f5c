/*
 * pattern_operator.c
 *		Compiles the alternatives of a field: literals and operators.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "route/pattern_compile.h"

static Str
str_of(const JsonbValue *value)
{
	return str_make(value->val.string.val, value->val.string.len);
}

static bool
str_is(Str str, const char *word)
{
	return str_equal(str, str_make(word, strlen(word)));
}

/* A value as messages show it. */
static const char *
shown_value(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return "null";
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		default:
			return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) ? "["
																							: "{";
	}
}

static inline bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

static inline bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

static Str
need_string(PatternCompiler *c, const JsonbValue *value, const char *reason)
{
	if (value->type != jbvString)
		pattern_refuse(c, "%s", reason);
	return str_of(value);
}

/* The one member of an expression. */
static void
only_member(PatternCompiler *c, const JsonbValue *object, const char *none, JsonbValue *key,
			JsonbValue *value)
{
	JsonbContainer *container = object->val.binary.data;
	JsonbIterator *it = JsonbIteratorInit(container);

	if (JsonContainerSize(container) == 0)
		pattern_refuse(c, "%s", none);
	if (JsonContainerSize(container) > 1)
		pattern_refuse(c, "Only one key allowed in match expression");
	(void) JsonbIteratorNext(&it, key, true);
	(void) JsonbIteratorNext(&it, key, true);
	(void) JsonbIteratorNext(&it, value, true);
}

static void
add_string(MatcherList *list, Str string)
{
	list->strings[list->string_count++] = string;
}

static Matcher *
add_matcher(MatcherList *list, MatcherKind kind)
{
	Matcher *matcher = &list->matchers[list->count++];

	memset(matcher, 0, sizeof(Matcher));
	matcher->kind = kind;
	return matcher;
}

/* A number; "compared": where the matcher of EventBridge needs it as a double. */
static void
compile_number(PatternCompiler *c, const JsonbValue *value, bool compared, Number *number)
{
	if ((compared && !number_survives_binary64(value->val.numeric)) ||
		!number_read(value->val.numeric, number))
		pattern_refuse(c, "Cannot compare number : %s", shown_value(value));
}

/* Positions count a quotation mark before the text. */
static void
compile_glob(PatternCompiler *c, Str text, Glob *glob)
{
	char *out = palloc(text.length + 1);
	int start = 0;
	int length = 0;

	glob->count = 1;
	for (int i = 0; i < text.length; i++)
		glob->count += text.data[i] == '*';
	glob->pieces = palloc(glob->count * sizeof(Str));
	glob->count = 0;
	for (int i = 0; i < text.length; i++)
	{
		char next = i + 1 < text.length ? text.data[i + 1] : '\0';

		if (text.data[i] == '*')
		{
			if (next == '*')
				pattern_refuse(c, "Consecutive wildcard characters at pos %d", i + 1);
			glob->pieces[glob->count++] = str_make(out + start, length - start);
			start = length;
			continue;
		}
		if (text.data[i] == '\\')
		{
			if (next != '*' && next != '\\')
				pattern_refuse(c, "Invalid escape character at pos %d", i + 1);
			i++;
		}
		out[length++] = text.data[i];
	}
	glob->pieces[glob->count++] = str_make(out + start, length - start);
}

/* prefix and suffix: a string, or one that ignores case. */
static void
compile_affix(PatternCompiler *c, const JsonbValue *value, bool prefix, MatcherList *list)
{
	const char *name = prefix ? "prefix" : "suffix";

	if (is_object(value))
	{
		JsonbValue key;
		JsonbValue inner;

		only_member(c, value,
					prefix ? "Prefix expression name not found"
						   : "Suffix expression name not found",
					&key, &inner);
		if (!str_is(str_of(&key), "equals-ignore-case"))
			pattern_refuse(c, "Unsupported %s pattern: %.*s", name, key.val.string.len,
						   key.val.string.val);
		fold_compile(need_string(c, &inner, "equals-ignore-case match pattern must be a string"),
					 &add_matcher(list, prefix ? MATCH_PREFIX_FOLD : MATCH_SUFFIX_FOLD)->fold);
		return;
	}
	if (value->type != jbvString)
		pattern_refuse(c, "%s match pattern must be a string", name);
	add_matcher(list, prefix ? MATCH_PREFIX : MATCH_SUFFIX)->string = str_of(value);
}

/* One of those that anything-but can have inside. */
static void
add_excepted(PatternCompiler *c, MatcherKind kind, const JsonbValue *value, MatcherList *list)
{
	Str text;
	Matcher *matcher;

	if (kind == MATCH_FOLD)
		text = need_string(c, value,
						   "Inside anything-but/equals-ignore-case list, number|start|null|boolean "
						   "is not supported.");
	else if (kind == MATCH_GLOB)
		text = need_string(c, value, "wildcard match pattern must be a string");
	else
		text = need_string(c, value, "prefix/suffix match pattern must be a string");
	if ((kind == MATCH_PREFIX || kind == MATCH_SUFFIX) && text.length == 0)
		pattern_refuse(c, "Null prefix/suffix not allowed");
	matcher = add_matcher(list, kind);
	if (kind == MATCH_FOLD)
		fold_compile(text, &matcher->fold);
	else if (kind == MATCH_GLOB)
		compile_glob(c, text, &matcher->glob);
	else
		matcher->string = text;
}

static MatcherList *
make_list(int room)
{
	MatcherList *list = palloc0(sizeof(MatcherList));

	list->strings = palloc_extended(room * sizeof(Str), MCXT_ALLOC_HUGE);
	list->matchers = palloc_extended(room * sizeof(Matcher), MCXT_ALLOC_HUGE);
	return list;
}

/* anything-but {"prefix" …}. */
static MatcherList *
compile_excepted_operator(PatternCompiler *c, const JsonbValue *value)
{
	JsonbValue key;
	JsonbValue inner;
	MatcherKind kind;
	MatcherList *list;
	Str name;

	only_member(c, value, "Anything-But expression name not found", &key, &inner);
	name = str_of(&key);
	if (str_is(name, "prefix"))
		kind = MATCH_PREFIX;
	else if (str_is(name, "suffix"))
		kind = MATCH_SUFFIX;
	else if (str_is(name, "equals-ignore-case"))
		kind = MATCH_FOLD;
	else if (str_is(name, "wildcard"))
		kind = MATCH_GLOB;
	else
		pattern_refuse(c, "Unsupported anything-but pattern: %.*s", name.length, name.data);
	if (is_array(&inner))
	{
		int count = JsonContainerSize(inner.val.binary.data);

		if (count == 0)
			pattern_refuse(c, "Empty arrays are not allowed");
		list = make_list(count);
		for (int i = 0; i < count; i++)
			add_excepted(c, kind, getIthJsonbValueFromContainer(inner.val.binary.data, i), list);
		return list;
	}
	if (inner.type != jbvString && inner.type != jbvNumeric)
		pattern_refuse(c, "Value of anything-but must be an array or single string/number value.");
	list = make_list(1);
	add_excepted(c, kind, &inner, list);
	return list;
}

/* anything-but a value or a list of them. */
static MatcherList *
compile_excepted_values(PatternCompiler *c, const JsonbValue *value)
{
	int count = is_array(value) ? JsonContainerSize(value->val.binary.data) : 1;
	MatcherList *list = make_list(Max(count, 1));

	for (int i = 0; i < count; i++)
	{
		const JsonbValue *item =
			is_array(value) ? getIthJsonbValueFromContainer(value->val.binary.data, i) : value;

		if (item->type == jbvString)
			add_string(list, str_of(item));
		else if (item->type == jbvNumeric)
			compile_number(c, item, true, &add_matcher(list, MATCH_NUMBER)->number);
		else if (is_array(value))
			pattern_refuse(c, "Inside anything but list, start|null|boolean is not supported.");
		else
			pattern_refuse(c,
						   "Value of anything-but must be an array or single string/number value.");
	}
	if ((list->count > 0) == (list->string_count > 0))
		pattern_refuse(c, "Inside anything but list, either all values are number or string, "
						  "mixed type is not supported");
	return list;
}

static void
compile_anything_but(PatternCompiler *c, const JsonbValue *value, MatcherList *list)
{
	MatcherList *except =
		is_object(value) ? compile_excepted_operator(c, value) : compile_excepted_values(c, value);

	matcher_list_sort(except);
	add_matcher(list, MATCH_NOT)->except = except;
}

/* A number behind an operator, and then nothing, or the upper end of a range. */
static void
compile_numeric(PatternCompiler *c, const JsonbValue *value, MatcherList *list)
{
	JsonbContainer *array;
	JsonbValue *terms[5];
	int count;
	Str op;
	Matcher *matcher;

	if (!is_array(value))
		pattern_refuse(c, "Value of numeric must be an array.");
	array = value->val.binary.data;
	count = JsonContainerSize(array);
	for (int i = 0; i < lengthof(terms); i++)
		terms[i] = i < count ? getIthJsonbValueFromContainer(array, i) : NULL;
	if (count == 0 || terms[0]->type != jbvString)
		pattern_refuse(c, "Invalid member in numeric match: %s",
					   count == 0 ? "]" : shown_value(terms[0]));
	op = str_of(terms[0]);
	if (!str_is(op, "=") && !str_is(op, "<") && !str_is(op, "<=") && !str_is(op, ">") &&
		!str_is(op, ">="))
		pattern_refuse(c, "Unrecognized numeric range operator: %.*s", op.length, op.data);
	if (count < 2 || terms[1]->type != jbvNumeric)
	{
		if (str_is(op, "="))
			pattern_refuse(c, "Value of equals must be numeric");
		pattern_refuse(c, "Value of %.*s must be numeric", op.length, op.data);
	}
	if (op.data[0] != '>')
	{
		if (count > 2)
			pattern_refuse(c, "Too many elements in numeric expression");
		if (op.data[0] == '=')
			compile_number(c, terms[1], true, &add_matcher(list, MATCH_NUMBER)->number);
		else
		{
			matcher = add_matcher(list, MATCH_RANGE);
			matcher->range.has_high = true;
			matcher->range.open_high = op.length == 1;
			compile_number(c, terms[1], true, &matcher->range.high);
		}
		return;
	}
	matcher = add_matcher(list, MATCH_RANGE);
	matcher->range.has_low = true;
	matcher->range.open_low = op.length == 1;
	if (count > 2)
	{
		if (terms[2]->type != jbvString)
			pattern_refuse(c, "Bad value in numeric range: %s", shown_value(terms[2]));
		op = str_of(terms[2]);
		if (!str_is(op, "<") && !str_is(op, "<="))
			pattern_refuse(c, "Bad numeric range operator: %.*s", op.length, op.data);
		if (count < 4 || terms[3]->type != jbvNumeric)
			pattern_refuse(c, "Value of %.*s must be numeric", op.length, op.data);
		if (count > 4)
			pattern_refuse(c, "Too many terms in numeric range expression");
		matcher->range.has_high = true;
		matcher->range.open_high = op.length == 1;
	}
	compile_number(c, terms[1], true, &matcher->range.low);
	if (count > 2)
	{
		compile_number(c, terms[3], true, &matcher->range.high);
		if (number_compare(&matcher->range.low, &matcher->range.high) >= 0)
			pattern_refuse(c, "Bottom must be less than top");
	}
}

static void
compile_cidr(PatternCompiler *c, Str text, MatcherList *list)
{
	const char *slash = memchr(text.data, '/', text.length);
	Matcher *matcher;
	Str ip;
	int64 bits = 0;
	bool negative = false;
	const char *cur;
	const char *end = text.data + text.length;

	if (slash == NULL || slash + 1 == end || memchr(slash + 1, '/', end - slash - 1) != NULL)
		pattern_refuse(c, "Malformed CIDR, one '/' required");
	cur = slash + 1;
	if (*cur == '-' || *cur == '+')
		negative = *cur++ == '-';
	if (cur == end)
		pattern_refuse(c, "Malformed CIDR, mask bits must be an integer");
	for (; cur < end; cur++)
	{
		if (*cur < '0' || *cur > '9')
			pattern_refuse(c, "Malformed CIDR, mask bits must be an integer");
		bits = bits * 10 + (*cur - '0');
		if (bits > PG_INT32_MAX)
			pattern_refuse(c, "Malformed CIDR, mask bits must be an integer");
	}
	if (negative && bits > 0)
		pattern_refuse(c, "Malformed CIDR, mask bits must not be negative");
	ip = str_make(text.data, slash - text.data);
	matcher = add_matcher(list, MATCH_CIDR);
	if (!address_parse(ip, &matcher->address))
		pattern_refuse(
			c, address_plausible(ip) ? "Invalid IP address: %.*s" : "Nonstandard IP address: %.*s",
			ip.length, ip.data);
	if (matcher->address.family == 4 && bits > 31)
		pattern_refuse(c, "IPv4 mask bits must be < 32");
	if (bits > 127)
		pattern_refuse(c, "IPv6 mask bits must be < 128");
	matcher->bits = bits;
	/* Whatever stands in the host's part is of no interest. */
	for (int i = 0; i < (int) sizeof(matcher->address.bytes); i++)
	{
		int kept = matcher->bits - i * 8;

		matcher->address.bytes[i] &= kept >= 8 ? 0xFF : kept <= 0 ? 0 : (uint8) (0xFF00 >> kept);
	}
}

static void
compile_expression(PatternCompiler *c, const JsonbValue *object, MatcherList *list)
{
	JsonbValue key;
	JsonbValue value;
	Str op;

	only_member(c, object, "Match expression name not found", &key, &value);
	op = str_of(&key);
	if (str_is(op, "exactly"))
		add_string(list, need_string(c, &value, "exact match pattern must be a string"));
	else if (str_is(op, "prefix"))
		compile_affix(c, &value, true, list);
	else if (str_is(op, "suffix"))
		compile_affix(c, &value, false, list);
	else if (str_is(op, "equals-ignore-case"))
		fold_compile(need_string(c, &value, "equals-ignore-case match pattern must be a string"),
					 &add_matcher(list, MATCH_FOLD)->fold);
	else if (str_is(op, "wildcard"))
		compile_glob(c, need_string(c, &value, "wildcard match pattern must be a string"),
					 &add_matcher(list, MATCH_GLOB)->glob);
	else if (str_is(op, "numeric"))
		compile_numeric(c, &value, list);
	else if (str_is(op, "anything-but"))
		compile_anything_but(c, &value, list);
	else if (str_is(op, "cidr"))
		compile_cidr(c, need_string(c, &value, "prefix match pattern must be a string"), list);
	else if (str_is(op, "exists"))
	{
		if (value.type != jbvBool)
			pattern_refuse(c, "exists match pattern must be either true or false.");
		if (value.val.boolean)
			add_matcher(list, MATCH_EXISTS);
		else
			list->absence = true;
	}
	else
		pattern_refuse(c, "Unrecognized match type %.*s", op.length, op.data);
}

void
pattern_compile_list(PatternCompiler *c, JsonbContainer *array, MatcherList *list)
{
	int count = JsonContainerSize(array);

	if (count == 0)
		pattern_refuse(c, "Empty arrays are not allowed");
	*list = *make_list(count);
	for (int i = 0; i < count; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(array, i);
		int before = list->count;
		Address address;

		switch (value->type)
		{
			case jbvString:
				if (address_parse(str_of(value), &address))
					add_matcher(list, MATCH_ADDRESS)->address = address;
				else
					add_string(list, str_of(value));
				break;
			case jbvNumeric:
				compile_number(c, value, false, &add_matcher(list, MATCH_NUMBER)->number);
				break;
			case jbvBool:
				add_matcher(list, value->val.boolean ? MATCH_TRUE : MATCH_FALSE);
				break;
			case jbvNull:
				add_matcher(list, MATCH_NULL);
				break;
			default:
				if (!is_object(value))
					pattern_refuse(c, "Match value must be String, number, true, false, or null");
				compile_expression(c, value, list);
				break;
		}
		if (list->count > before)
			list->matchers[before].position = i;
	}
	matcher_list_sort(list);
}
