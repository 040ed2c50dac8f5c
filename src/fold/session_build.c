/*
 * session_build.c
 *		Rebuilds sessions beside their old state.
 */
#include "postgres.h"

#include "fold/projection.h"
#include "fold/session.h"

bool
session_build_step(void)
{
	return false;
}
