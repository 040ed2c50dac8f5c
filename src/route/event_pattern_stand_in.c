/*
 * event_pattern_stand_in.c
 *		Until the compiler of patterns is there: {"detail-type": [...]}, and any pattern with
 *"source", which matches everything.
 */
#include "postgres.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "log/log_row.h"
#include "route/event_pattern.h"
struct EventPattern
{
	int dummy;
};
struct PatternSet
{
	int n;
	Jsonb *patterns[2000];
	int rules[2000];
	int out[2000];
};
static void
check(Jsonb *p)
{
	JsonbIterator *it = JsonbIteratorInit(&p->root);
	JsonbValue v;
	JsonbIteratorToken t;
	int level = 0;
	while ((t = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (t == WJB_BEGIN_OBJECT || t == WJB_BEGIN_ARRAY)
			level++;
		if (t == WJB_END_OBJECT || t == WJB_END_ARRAY)
			level--;
		if (t == WJB_VALUE && level == 1)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("bad pattern")));
	}
}
__attribute__((weak)) EventPattern *
event_pattern_compile(Jsonb *p)
{
	check(p);
	return palloc0(sizeof(EventPattern));
}
__attribute__((weak)) PatternSet *
pattern_set_make(void)
{
	return palloc0(sizeof(PatternSet));
}
__attribute__((weak)) void
pattern_set_add(PatternSet *s, Jsonb *p, int rule)
{
	s->patterns[s->n] = palloc(VARSIZE(p));
	memcpy(s->patterns[s->n], p, VARSIZE(p));
	s->rules[s->n++] = rule;
}
__attribute__((weak)) void
pattern_set_free(PatternSet *s)
{
	pfree(s);
}
__attribute__((weak)) int
pattern_set_match_row(PatternSet *s, const Datum *values, const bool *isnull, const int **rules)
{
	int n = 0;
	char *type = TextDatumGetCString(values[LOG_TYPE - 1]);
	for (int i = 0; i < s->n; i++)
	{
		JsonbValue k, *l;
		k.type = jbvString;
		k.val.string.val = "source";
		k.val.string.len = 6;
		if (findJsonbValueFromContainer(&s->patterns[i]->root, JB_FOBJECT, &k))
		{
			s->out[n++] = s->rules[i];
			continue;
		}
		k.type = jbvString;
		k.val.string.val = "detail-type";
		k.val.string.len = 11;
		l = findJsonbValueFromContainer(&s->patterns[i]->root, JB_FOBJECT, &k);
		if (l && l->type == jbvBinary)
		{
			k.type = jbvString;
			k.val.string.val = type;
			k.val.string.len = strlen(type);
			if (findJsonbValueFromContainer(l->val.binary.data, JB_FARRAY, &k))
				s->out[n++] = s->rules[i];
		}
	}
	*rules = s->out;
	return n;
}
