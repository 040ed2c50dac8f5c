/*
 * jsonb_number.h
 *		Exact comparison of the numbers in a jsonb, without allocating.
 */
#ifndef BEHAVIOR_JSONB_NUMBER_H
#define BEHAVIOR_JSONB_NUMBER_H

/* Numbers are given as they lie in a jsonb: where a Numeric starts. */
extern int json_number_compare(const char *a, const char *b);
extern bool json_number_is_integer(const char *number);
extern uint64 json_number_hash(const char *number);

/* The value cut to an int: of what is beyond, the nearest int. */
extern int json_number_to_int(const char *number);

/* Is it greater than zero? */
extern bool json_number_is_positive(const char *number);

/*
 * Is one number an integral multiple of another that is not zero?  *work: about how many
 * operations it took (or would take, when that is more than limit: then the answer is false).
 */
extern bool json_number_is_multiple(const char *number, const char *of, int64 limit, int64 *work);

#endif
