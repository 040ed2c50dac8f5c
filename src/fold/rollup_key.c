/*
 * rollup_key.c
 *		The 128-bit hash that is a rollup's primary key.
 *
 * SipHash-2-4-128 with the database's seed over the keys in order, each as a flag for NULL
 * and then bytes that are the same for exactly the values that GROUP BY takes for one:
 * numeric without its scale, -0 as 0, an interval as its span, bpchar without
 * trailing blanks, an enum's label.  Values do not go through type output or
 * oids where these could change over dump and restore.  Types not known here go
 * through their hash operator class, twice with different seeds.
 *
 * The first four bytes are the minute of the time key where there is one, so that the cells of one
 * tick are neighbours in the index however many there are of others: random keys would touch a page
 * each.  96 bits of a keyed hash for the cells of a minute are enough.
 */
#include "postgres.h"

#include <math.h>

#include "access/hash.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "common/int128.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/cash.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "core/hash.h"
#include "core/instance.h"
#include "fold/rollup.h"

typedef enum HashMethod
{
	HASH_NONE,
	HASH_INT1, /* bool, "char" */
	HASH_INT2,
	HASH_INT4,
	HASH_INT8,
	HASH_FLOAT4,
	HASH_FLOAT8,
	HASH_NUMERIC,
	HASH_VARLENA, /* bytes are the value */
	HASH_FIXED,	  /* by reference, typlen bytes are the value */
	HASH_NAME,
	HASH_BPCHAR,
	HASH_INTERVAL,
	HASH_TIMETZ,
	HASH_JSONB,
	HASH_ENUM,
	HASH_ARRAY,
	HASH_OPCLASS
} HashMethod;

typedef struct KeyType
{
	HashMethod method;
	Oid type;
	int16 typlen;
	bool typbyval;
	char typalign;
	Oid collation;
	FmgrInfo function;		 /* HASH_OPCLASS */
	struct KeyType *element; /* HASH_ARRAY */
} KeyType;

struct RollupKeyHasher
{
	int count;
	int time_key; /* 1-based, 0: none */
	KeyType *types;
};

/* Fixes the bytes of an integer whatever the machine. */
static void
add_int(SipState *state, int64 value)
{
#ifdef WORDS_BIGENDIAN
	value = (int64) pg_bswap64((uint64) value);
#endif
	sip_update(state, &value, sizeof(value));
}

/* Bytes of any length: the length first, so that neighbours cannot run into each other. */
static void
add_bytes(SipState *state, const void *data, size_t length)
{
	add_int(state, (int64) length);
	sip_update(state, data, length);
}

static void
add_float(SipState *state, double value)
{
	uint64 bits;

	if (isnan(value))
		value = get_float8_nan();
	else if (value == 0)
		value = 0;
	memcpy(&bits, &value, sizeof(bits));
	add_int(state, (int64) bits);
}

static HashMethod
method_of(Oid type, Oid collation)
{
	switch (type)
	{
		case BOOLOID:
		case CHAROID:
			return HASH_INT1;
		case INT2OID:
			return HASH_INT2;
		case INT4OID:
		case DATEOID:
		case OIDOID:
			return HASH_INT4;
		case INT8OID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case CASHOID:
			return HASH_INT8;
		case FLOAT4OID:
			return HASH_FLOAT4;
		case FLOAT8OID:
			return HASH_FLOAT8;
		case NUMERICOID:
			return HASH_NUMERIC;
		case TEXTOID:
		case VARCHAROID:
			return !OidIsValid(collation) || get_collation_isdeterministic(collation)
					   ? HASH_VARLENA
					   : HASH_OPCLASS;
		case BYTEAOID:
		case INETOID:
		case CIDROID:
		case BITOID:
		case VARBITOID:
			return HASH_VARLENA;
		case UUIDOID:
		case MACADDROID:
		case MACADDR8OID:
			return HASH_FIXED;
		case NAMEOID:
			return HASH_NAME;
		case BPCHAROID:
			return !OidIsValid(collation) || get_collation_isdeterministic(collation)
					   ? HASH_BPCHAR
					   : HASH_OPCLASS;
		case INTERVALOID:
			return HASH_INTERVAL;
		case TIMETZOID:
			return HASH_TIMETZ;
		case JSONBOID:
			return HASH_JSONB;
		case REGCLASSOID:
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return HASH_NONE; /* another oid after dump and restore */
	}
	if (get_typtype(type) == TYPTYPE_ENUM)
		return HASH_ENUM;
	if (OidIsValid(get_element_type(type)))
		return HASH_ARRAY;
	if (get_typtype(type) == TYPTYPE_COMPOSITE)
		return HASH_NONE;
	return OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc)
			   ? HASH_OPCLASS
			   : HASH_NONE;
}

/* The method for a type, for arrays that of their elements too; HASH_NONE when there is none. */
static HashMethod
fill_type(KeyType *key, Oid type, Oid collation)
{
	type = getBaseType(type);
	key->type = type;
	key->collation = collation;
	key->method = method_of(type, collation);
	get_typlenbyvalalign(type, &key->typlen, &key->typbyval, &key->typalign);
	if (key->method == HASH_OPCLASS)
		fmgr_info(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc,
				  &key->function);
	else if (key->method == HASH_ARRAY)
	{
		key->element = palloc0(sizeof(KeyType));
		if (fill_type(key->element, get_element_type(type), collation) == HASH_NONE)
			key->method = HASH_NONE;
	}
	return key->method;
}

/* Raises 0A000 when values of a type cannot be keys. */
void
rollup_check_key_type(Oid type, Oid collation, const char *expression)
{
	KeyType key = {0};

	if (fill_type(&key, type, collation) == HASH_NONE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a rollup cannot group by %s, which is of type %s", expression,
							   format_type_be(type)),
						errhint("Group by its text or by its parts.")));
}

/*
 * Hasher for columns first.. (0-based) of a row; lives in the current context.  time_key: number
 * (1-based) of a key of type timestamptz, 0 for none.
 */
RollupKeyHasher *
rollup_key_hasher(TupleDesc desc, int first, int count, int time_key)
{
	RollupKeyHasher *hasher = palloc0(sizeof(RollupKeyHasher));

	hasher->count = count;
	hasher->time_key = time_key;
	hasher->types = palloc0(sizeof(KeyType) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, first + i);

		if (fill_type(&hasher->types[i], attribute->atttypid, attribute->attcollation) == HASH_NONE)
			elog(ERROR, "type %u cannot be a key of a rollup", attribute->atttypid);
	}
	return hasher;
}

static void
add_numeric(SipState *state, Numeric value)
{
	char *text = numeric_normalize(value);

	add_bytes(state, text, strlen(text));
	pfree(text);
}

/* Everything that tells one jsonb from another: structure, keys in jsonb's own order, values. */
static void
add_jsonb(SipState *state, Jsonb *jsonb)
{
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue value;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		add_int(state, token);
		if (token != WJB_KEY && token != WJB_VALUE && token != WJB_ELEM)
		{
			if (token == WJB_BEGIN_ARRAY)
				add_int(state, value.val.array.rawScalar);
			continue;
		}
		add_int(state, value.type);
		switch (value.type)
		{
			case jbvString:
				add_bytes(state, value.val.string.val, value.val.string.len);
				break;
			case jbvNumeric:
				add_numeric(state, value.val.numeric);
				break;
			case jbvBool:
				add_int(state, value.val.boolean);
				break;
			default:
				break;
		}
	}
}

static void add_value(SipState *state, KeyType *key, Datum value, bool isnull);

static void
add_array(SipState *state, KeyType *key, ArrayType *array)
{
	Datum *values;
	bool *nulls;
	int count;

	add_int(state, ARR_NDIM(array));
	for (int i = 0; i < ARR_NDIM(array); i++)
	{
		add_int(state, ARR_DIMS(array)[i]);
		add_int(state, ARR_LBOUND(array)[i]);
	}
	deconstruct_array(array, ARR_ELEMTYPE(array), key->element->typlen, key->element->typbyval,
					  key->element->typalign, &values, &nulls, &count);
	for (int i = 0; i < count; i++)
		add_value(state, key->element, values[i], nulls[i]);
}

/* An interval's span in microseconds, months as 30 days, the way comparison takes it. */
static void
add_interval(SipState *state, const Interval *interval)
{
	INT128 span = int64_to_int128(interval->time % USECS_PER_DAY);
	int64 days = interval->time / USECS_PER_DAY;

	days += interval->month * INT64CONST(30);
	days += interval->day;
	int128_add_int64_mul_int64(&span, days, USECS_PER_DAY);
	sip_update(state, &span, sizeof(span));
}

static void
add_enum(SipState *state, Oid label)
{
	HeapTuple tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(label));
	char *text;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "enum value %u not found", label);
	text = NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel);
	add_bytes(state, text, strlen(text));
	ReleaseSysCache(tuple);
}

static void
add_value(SipState *state, KeyType *key, Datum value, bool isnull)
{
	uint8 flag = isnull ? 0 : 1;

	sip_update(state, &flag, 1);
	if (isnull)
		return;
	switch (key->method)
	{
		case HASH_INT1:
			add_int(state, DatumGetChar(value));
			break;
		case HASH_INT2:
			add_int(state, DatumGetInt16(value));
			break;
		case HASH_INT4:
			add_int(state, DatumGetInt32(value));
			break;
		case HASH_INT8:
			add_int(state, DatumGetInt64(value));
			break;
		case HASH_FLOAT4:
			add_float(state, DatumGetFloat4(value));
			break;
		case HASH_FLOAT8:
			add_float(state, DatumGetFloat8(value));
			break;
		case HASH_NUMERIC:
			add_numeric(state, DatumGetNumeric(value));
			break;
		case HASH_VARLENA:
		{
			struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

			add_bytes(state, VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain));
			if ((Pointer) plain != DatumGetPointer(value))
				pfree(plain);
			break;
		}
		case HASH_FIXED:
			add_bytes(state, DatumGetPointer(value), key->typlen);
			break;
		case HASH_NAME:
			add_bytes(state, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
			break;
		case HASH_BPCHAR:
		{
			BpChar *plain = DatumGetBpCharPP(value);

			add_bytes(state, VARDATA_ANY(plain),
					  bpchartruelen(VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain)));
			if ((Pointer) plain != DatumGetPointer(value))
				pfree(plain);
			break;
		}
		case HASH_INTERVAL:
			add_interval(state, DatumGetIntervalP(value));
			break;
		case HASH_TIMETZ:
			add_int(state, DatumGetTimeTzADTP(value)->time);
			add_int(state, DatumGetTimeTzADTP(value)->zone);
			break;
		case HASH_JSONB:
			add_jsonb(state, DatumGetJsonbP(value));
			break;
		case HASH_ENUM:
			add_enum(state, DatumGetObjectId(value));
			break;
		case HASH_ARRAY:
			add_array(state, key, DatumGetArrayTypeP(value));
			break;
		case HASH_OPCLASS:
			for (int i = 0; i < 2; i++)
			{
				uint64 seed =
					i == 0 ? UINT64CONST(0x62656861766f7231) : UINT64CONST(0x9e3779b97f4a7c15);

				add_int(state, DatumGetInt64(FunctionCall2Coll(&key->function, key->collation,
															   value, UInt64GetDatum(seed))));
			}
			break;
		case HASH_NONE:
			elog(ERROR, "type %u cannot be a key of a rollup", key->type);
	}
}

/* Minutes since 1970, at the ends of what 32 bits hold for other times, 0 for none. */
static uint32
minute_of(TimestampTz at)
{
	int64 minute = at / USECS_PER_MINUTE + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
											   (int64) MINS_PER_HOUR * HOURS_PER_DAY;

	return (uint32) Min(Max(minute, 1), (int64) PG_UINT32_MAX);
}

void
rollup_key_hash(RollupKeyHasher *hasher, const Datum *values, const bool *isnull, pg_uuid_t *result)
{
	SipState state;

	sip_init(&state, instance_seed(), true);
	for (int i = 0; i < hasher->count; i++)
		add_value(&state, &hasher->types[i], values[i], isnull[i]);
	sip_final128(&state, result->data);
	if (hasher->time_key > 0)
	{
		int i = hasher->time_key - 1;
		uint32 minute = pg_hton32(isnull[i] ? 0 : minute_of(DatumGetTimestampTz(values[i])));

		memcpy(result->data, &minute, sizeof(minute));
	}
}

/* Are values of all keys the same exactly when their bytes are, once they are not toasted? */
bool
rollup_keys_are_bytes(const RollupKeyHasher *hasher)
{
	for (int i = 0; i < hasher->count; i++)
	{
		switch (hasher->types[i].method)
		{
			case HASH_INT1:
			case HASH_INT2:
			case HASH_INT4:
			case HASH_INT8:
			case HASH_VARLENA:
			case HASH_FIXED:
				break;
			default:
				return false;
		}
	}
	return true;
}
